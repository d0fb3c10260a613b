"""Values, seams and rules that every room shares: numpy and the standard library; anything heavier is imported where it is used."""
