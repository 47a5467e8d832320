"""Media types of request and response bodies."""

JSON = "application/json"
RAW = "application/octet-stream"
SAFETENSORS = "application/vnd.safetensors"
PACKED = "application/vnd.smallfry.packed"
