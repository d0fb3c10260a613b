"""The texts in an image file: PNG chunks, comments, EXIF, XMP, IPTC, and the lowest pixel bits."""
