"""Corpora in, one published generation out: sources, cleaning, plan, journal and the stages of a build."""
