"""Untrusted image files: bounds and decoding, the texts in a file, and the prompt in those texts.

`bounds` -> `image_opening` -> `decode` give one RGB picture; `image_opening` -> `metadata` ->
`prompts` give the prompt. Pillow and sd-parsers are imported inside functions only.
"""
