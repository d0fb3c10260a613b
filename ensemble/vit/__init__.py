"""`vit` as trained by users: an image tower of timm or open_clip with a head for MiniLM space."""
