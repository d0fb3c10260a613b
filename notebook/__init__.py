"""The names that `import imprompt` gives: for notebooks and programs."""
