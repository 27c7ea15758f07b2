"""What files are packed in: compressed streams, within bounds, and the members of tars. Nothing is ever extracted."""
