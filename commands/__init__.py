"""The verbs: each file parses one command's options, calls one function of a room, and prints what it gave."""
