"""Rows of large paged tables gathered into buffers: rates, cold reads and memory."""
