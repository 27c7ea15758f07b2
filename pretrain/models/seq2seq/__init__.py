"""Models of a sequence given another."""
