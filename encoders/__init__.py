"""Towers that turn texts and images into unit vectors, and the weight files that they read."""
