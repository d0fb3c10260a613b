"""Submissions: the ensemble's vectors for a folder of images, made in resumable batches."""
