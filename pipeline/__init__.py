"""The batch half: from collections of grey scans to colour derivatives, on Apache Beam.

One scan's way through the job::

    collections what there is to do, and what a former run has done    sources.py, manifest.py
    scan      a master's bytes -> luma, metadata, a reason to refuse scan.py
    inference luma tiles -> chroma                                   inference.py
    derivative scan + chroma -> an encoded picture                   chroma.py, graft.py, derivative.py
    codec     runs `scan` and `derivative` in a guarded process      codec.py, guard.py
    colorize  the Beam graph that joins them                         colorize.py

Nothing here is imported eagerly: `--help` and the codec process must start fast.
"""
