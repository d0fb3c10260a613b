"""The prompt in those texts: one module for each form in which a tool writes its prompt."""
