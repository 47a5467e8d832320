"""The routes, and the formats that they answer in."""
