"""The batch side: from collections of grey scans to colour derivatives, on Apache Beam.

A scan goes through these packages::

    colorize, commands   the command line
    batch                the job: plan, Beam graph, network, progress
    inputs               finds the scans and the hints for them
    codec                decodes and encodes, in a process of its own
    decoding             a file to pixels
    metadata             what the master says about itself
    imaging              pixels to the network's view; chroma to a derivative
    encoding             a derivative to a file
    records              the record of the scan, in the manifest
    gallery              pictures for people
    storage              files on local disks and in buckets

`photographs` prepares colour photographs for training. Imports go from the top down; `make lint` checks this. Nothing
is imported eagerly here, because `--help` and the codec process must start fast.
"""
