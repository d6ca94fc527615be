"""Colour science: sRGB, Lab, other colour spaces, and how chroma follows edges and marks."""
