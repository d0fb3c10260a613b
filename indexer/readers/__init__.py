"""Readers of corpora: each yields the rows of one kind of file, folder or data set as prompts.

`sources` turns what a user types into a source; `rows` defines a source and judges its rows.
"""
