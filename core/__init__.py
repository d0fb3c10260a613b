"""Values, protocols and rules that every room shares; needs only numpy to import."""
