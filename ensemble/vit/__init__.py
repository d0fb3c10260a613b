"""`vit` trained by the user: an image tower of timm or open_clip with a head for MiniLM space."""
