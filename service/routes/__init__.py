"""Routes and response formats."""
