"""imprompt finds the prompt behind an image."""
