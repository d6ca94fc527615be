"""Pages of pictures, before and after, for people."""
