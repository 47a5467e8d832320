"""HTTP for the client: addresses, connections, requests and responses."""
