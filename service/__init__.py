"""The smallfry service: one low-memory store of embedding tables behind HTTP."""
