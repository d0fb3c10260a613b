"""Readers of corpora: tables, text files, image folders and the hub's data sets, each as rows of prompts."""
