"""The server against Redis and a bare ASGI application, and its clients against each other."""
