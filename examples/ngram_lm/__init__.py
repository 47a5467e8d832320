"""A small language model with a hashed n-gram table, and what compressing the table costs it."""
