"""`interrogator`: captions and phrases for pictures, as by CLIP Interrogator, in batches."""
