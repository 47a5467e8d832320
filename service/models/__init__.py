"""Models, their registry, and the sources of their files."""
