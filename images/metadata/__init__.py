"""The texts in an image file: PNG text chunks, comments, EXIF, XMP, IPTC, and the lowest pixel bits."""
