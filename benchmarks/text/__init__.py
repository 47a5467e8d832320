"""Static embedding models: speed, memory and equality against the libraries that made them."""
