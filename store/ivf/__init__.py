"""The inverted-file index (IVF): its files, its lists, and the search."""
