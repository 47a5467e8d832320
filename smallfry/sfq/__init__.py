"""The ``.sfq`` file: header, metadata, reading, writing and verifying."""
