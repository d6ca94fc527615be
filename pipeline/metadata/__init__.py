"""What a master says about itself (EXIF, XMP, IPTC), and what its derivative says."""
