"""Derivatives as files: one module for each format, with the metadata of the master."""
