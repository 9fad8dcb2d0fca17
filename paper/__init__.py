"""One's own runs beside the paper's, and what goes beyond it. Nothing outside of this folder imports it."""
