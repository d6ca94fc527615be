"""Files to pixels: one way of opening a picture, and decoders for the kinds that Pillow misreads."""
