"""Submissions: the ensemble's vectors for a folder of images, written in batches that resume."""
