"""Colour photographs as training material: read, judged, deduplicated, and split."""
