"""Text to vectors: tokenizers of static embedding models over mapped arrays."""
