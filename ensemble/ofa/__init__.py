"""OFA-large-caption: an image in, one English sentence out."""
