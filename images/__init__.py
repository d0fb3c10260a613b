"""Hostile image files in: limits, orientation, one RGB picture out, and the prompt that a file carries.

Pillow and sd-parsers are imported inside functions only.
"""
