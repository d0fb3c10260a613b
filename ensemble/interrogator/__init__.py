"""`interrogator`: words of a picture chosen from lists of phrases, as CLIP Interrogator does it, for whole batches."""
