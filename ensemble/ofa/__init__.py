"""OFA-large-caption: writes one English sentence for an image."""
