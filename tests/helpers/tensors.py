"""Write .safetensors files of any dtype, and the index of shards."""

import json

import numpy as np

FLOAT8 = np.array([*range(127), *range(128, 255)], np.uint8)  # F8_E4M3 without NaN


def write_tensors(path, tensors):
    """Write tensors, each a dtype name and an array of its bytes."""
    header, end = {}, 0
    for name, (dtype, array) in tensors.items():
        header[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": [end, end + array.nbytes]}
        end += array.nbytes
    text = json.dumps(header).encode()
    data = b"".join(array.tobytes() for _, array in tensors.values())
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def write_model(folder, *shards):
    """Write a sharded model; return the path of its index."""
    places = {}
    for number, tensors in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        write_tensors(folder / name, tensors)
        places |= dict.fromkeys(tensors, name)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    return index


def stored_as(dtype, matrix):
    """Return a float32 matrix as its dtype stores it."""
    if dtype == "BF16":
        return (matrix.view(np.uint32) >> 16).astype(np.uint16)
    return matrix.astype({"F64": np.float64, "F32": np.float32, "F16": np.float16}[dtype])
