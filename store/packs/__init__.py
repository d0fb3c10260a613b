"""A version of an index as one file, to hand on: written, and read from anybody."""
