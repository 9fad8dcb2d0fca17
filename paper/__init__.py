"""What belongs to the reproduction of one paper. Nothing outside of this folder imports it."""
