"""What turns several guesses into one answer, and the training of the parts that are learned."""
