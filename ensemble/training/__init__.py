"""Training of the image head of `lite` and of ViT regressors, from image-prompt pairs."""
