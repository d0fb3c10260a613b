"""The prompt in a file's texts; one module per form in which tools write it."""
