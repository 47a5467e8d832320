"""The models that are served, and where their files come from."""
