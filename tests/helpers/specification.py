"""A reader of ``.sfq`` files written from docs/reference/format.md alone, in plain Python."""

import json
import struct

MODULUS = 2**64


class Reader:
    def __init__(self, raw: bytes) -> None:
        length = int.from_bytes(raw[:8], "little")
        self.header = json.loads(raw[8 : 8 + length])
        self.metadata = self.header.pop("__metadata__")
        self.data = raw[8 + length :]
        self.rows, self.dim, self.nbit = (int(self.metadata[name]) for name in ("rows", "dim", "nbit"))

    def tensor(self, name: str) -> list:
        entry = self.header[name]
        begin, end = entry["data_offsets"]
        letter = {"U8": "B", "U32": "I", "U64": "Q", "F16": "e", "F32": "f"}[entry["dtype"]]
        return [value for (value,) in struct.iter_unpack(f"<{letter}", self.data[begin:end])]

    def token(self, row: int) -> bytes:
        begin, end = self.tensor("token_offsets")[row : row + 2]
        return bytes(self.tensor("tokens")[begin:end])

    def hash(self, token: bytes) -> int:
        h = (int(self.metadata["token_hash_seed"]) + 1) * 0x9E3779B97F4A7C15 % MODULUS
        h ^= len(token) * 0xD6E8FEB86659FD93 % MODULUS
        for start in range(0, max(len(token), 1), 8):
            h = (h ^ int.from_bytes(token[start : start + 8], "little")) * 0xA0761D6478BD642F % MODULUS
            h ^= h >> 32
        h = (h ^ (h >> 29)) * 0xBF58476D1CE4E5B9 % MODULUS
        return h ^ (h >> 32)

    def find(self, token: bytes) -> int:
        index, h, bits = self.tensor("token_index"), self.hash(token), self.rows.bit_length()
        mask = 2**bits - 1
        home = ((h >> 32) * (len(index) - 63)) >> 32
        tag = (h << bits) % 2**32 & ~mask
        for slot in index[home : home + 64]:
            if slot == 0:
                return -1
            if slot & ~mask == tag and self.token((slot & mask) - 1) == token:
                return (slot & mask) - 1
        return -1

    def built_index(self) -> list[int]:
        """Build the index as the text specifies, with the seed of the file."""
        slots, bits = len(self.tensor("token_index")), self.rows.bit_length()
        hashes = [self.hash(self.token(row)) for row in range(self.rows)]
        homes = [((h >> 32) * (slots - 63)) >> 32 for h in hashes]
        index = [0] * slots
        for row in sorted(range(self.rows), key=lambda row: homes[row]):
            slot = homes[row]
            while index[slot]:
                slot += 1
            index[slot] = ((hashes[row] << bits) % 2**32 & ~(2**bits - 1)) | (row + 1)
        return index

    def row(self, row: int) -> list[float]:
        """Decode a row to float32 values, held in Python floats."""
        if "zero_rows" in self.header and row in self.tensor("zero_rows"):
            return [0.0] * self.dim
        if self.nbit == 32:
            values = self.tensor("codes")[row * self.dim : (row + 1) * self.dim]
        else:
            values = self._coded(row)
        if "column_scale" in self.header:
            values = [single(a * b) for a, b in zip(values, self.tensor("column_scale"), strict=True)]
        scale = self.record(row)[1] if "layout" in self.metadata else None
        if scale == 0:
            return [0.0] * self.dim
        if scale is not None:
            values = [single(value * scale) for value in values]
        if "row_scale" in self.header:
            values = [single(value * self.tensor("row_scale")[row]) for value in values]
        if "mean" in self.header:
            values = [single(a + b) for a, b in zip(values, self.tensor("mean"), strict=True)]
        return values

    def record(self, row: int) -> tuple[bytes, float]:
        """Return the packed codes and the scale of a row of a paged table."""
        stride = -(-self.dim * self.nbit // 8)
        size = stride + 2
        per_block, block = max(1, 4096 // size), max(4096, size)
        assert self.header["codes"]["shape"] == [-(-self.rows // per_block), block]
        begin = self.header["codes"]["data_offsets"][0] + row // per_block * block + row % per_block * size
        record = self.data[begin : begin + size]
        return record[:stride], struct.unpack("<e", record[stride:])[0]

    def _coded(self, row: int) -> list[float]:
        codebook = self.tensor("codebook")
        window, size = len(codebook).bit_length() - 1, self.dim * self.nbit
        stride = -(-size // 8)
        if "layout" in self.metadata:
            packed, _ = self.record(row)
        else:
            packed = bytes(self.tensor("codes")[row * stride : (row + 1) * stride])
        ring = [packed[bit // 8] >> bit % 8 & 1 for bit in range(size)]
        return [
            codebook[sum(ring[(j * self.nbit + i) % size] << i for i in range(window))]
            for j in range(self.dim)
        ]


def single(value: float) -> float:
    # For sums and products of two float32, rounding to double and then to float32 equals rounding once.
    return struct.unpack("<f", struct.pack("<f", value))[0]
