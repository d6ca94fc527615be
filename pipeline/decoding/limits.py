"""Limits of pictures that are read."""

MAX_PIXELS = 300_000_000  # default for a picture
MIN_SIDE = 16  # pixels; smallest side of a picture
