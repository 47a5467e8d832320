"""Ray Serve and Ray Data against one process."""
