"""Sentence classification over compressed word vectors."""
