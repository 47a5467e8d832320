"""HTTP: protocol, middleware, requests, responses and limits."""
