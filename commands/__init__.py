"""The verbs: each file parses one verb's options, calls a room, and prints the result."""
