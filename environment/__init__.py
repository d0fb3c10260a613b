"""What this machine has and what models need: packages, devices, model files.

`doctor` and `prefetch` print it.
"""
