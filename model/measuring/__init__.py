"""Measuring: metrics, the report of a model, the comparison of all methods."""
