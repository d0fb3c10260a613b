"""Corpora in, one published version out: sources, cleaning, plan, journal and the stages of a build."""
