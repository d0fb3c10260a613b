"""The index on disk: layout, manifest, vectors, prompts, nearest neighbours, publishing.

Nothing here knows what an encoder is.
"""
