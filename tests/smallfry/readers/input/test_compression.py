import bz2
import gzip
import hashlib
import io
import lzma
import sys
import types

import pytest

from smallfry.errors import InputError
from smallfry.readers import open_vectors
from smallfry.readers.input import compression
from tests.helpers.readers import read

LINES = b"".join(b"token-%d %d.5\n" % (i, i * i % 977) for i in range(2000))


def alone(data):
    """Compress as .lzma, the format before .xz."""
    return lzma.compress(data, lzma.FORMAT_ALONE)


METHODS = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress, "lzma": alone}
each_method = pytest.mark.parametrize(("name", "compress"), METHODS.items())


@each_method
def test_compressed_text_is_read(name, compress):
    tokens, _, report = read(compress(LINES))
    assert len(tokens) == 2000
    assert report.compression == name


@each_method
def test_digest_and_progress_are_of_the_stored_bytes(tmp_path, name, compress):
    data = compress(LINES)
    (tmp_path / "x").write_bytes(data)
    calls = []
    source = open_vectors(tmp_path / "x", progress=lambda *call: calls.append(call))
    list(source.chunks())
    assert source.sha256 == hashlib.sha256(data).hexdigest()
    assert calls[-1] == ("read", len(data), len(data))


@each_method
@pytest.mark.parametrize("cut", [1, 8, 30])
def test_truncated_data_is_rejected(name, compress, cut):
    with pytest.raises(InputError, match=f"the {name} data is damaged or truncated after"):
        read(compress(LINES)[:-cut])


@pytest.mark.parametrize("name", ["gzip", "bzip2", "xz"])  # .lzma has no checksum
def test_damaged_data_is_rejected(name):
    data = bytearray(METHODS[name](LINES))
    data[len(data) // 2] ^= 1
    with pytest.raises(InputError, match=f"the {name} data is damaged"):
        read(bytes(data))


@pytest.mark.parametrize("name", ["gzip", "bzip2", "xz"])
@pytest.mark.parametrize("padding", [b"", bytes(4)])
def test_streams_one_after_the_other_are_read(name, padding):
    compress = METHODS[name]
    assert read(compress(b"the 1 2\n") + padding + compress(b"of 3 4\n") + padding)[0] == ["the", "of"]


@each_method
def test_other_data_after_the_stream_is_rejected(name, compress):
    with pytest.raises(InputError, match=f"the {name} data is damaged"):
        read(compress(LINES) + b"more data")


@each_method
def test_output_is_produced_as_it_is_read(name, compress):
    """A small file of much data takes little memory."""
    data = compress(bytes(10_000_000))
    file = compression.Decompressed("x", io.BytesIO(data), compression.find_compression(data))
    sizes = [len(file.read(1000)) for _ in range(100)]
    assert sizes == [1000] * 100


@pytest.mark.parametrize("head", [b"BZh 0.1 0.2\n", b"]\0\0\0\0\0\0\0{", b"](((( 1 2 3 4 5\n"])
def test_text_and_safetensors_are_not_taken_for_compressed(head):
    assert compression.find_compression(head) is None


def test_data_compressed_twice_is_rejected():
    with pytest.raises(InputError, match="is xz data inside gzip data"):
        read(gzip.compress(lzma.compress(LINES)))


def test_empty_data():
    for compress in METHODS.values():
        with pytest.raises(InputError, match="is empty"):
            read(compress(b""))


@pytest.fixture
def no_zstd(monkeypatch):
    """No package of zstd is installed."""
    for name in (*compression._ZSTD_MODULES, "zstandard"):
        monkeypatch.setitem(sys.modules, name, None)


ZSTD = b"\x28\xb5\x2f\xfd"


def test_zstd_without_a_package_is_rejected_with_the_remedy(no_zstd, tmp_path):
    (tmp_path / "x.zst").write_bytes(ZSTD + b"....")
    with pytest.raises(
        InputError,
        match=r"x\.zst is zstd data, for which this Python has no module\..* pip install zstandard",
    ):
        read(tmp_path / "x.zst")


@pytest.mark.parametrize(("name", "module"), [("bzip2", "bz2"), ("xz", "lzma"), ("lzma", "lzma")])
def test_python_without_the_module(monkeypatch, name, module):
    data = METHODS[name](LINES)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=f"<input> is {name} data, for which this Python has no module"):
        read(data)


class Doubled:
    """In place of zstd: a stream is the magic number, then each byte twice, then a NUL."""

    def __init__(self):
        self.eof = False
        self.unused_data = self.unconsumed_tail = b""
        self._data = b""

    def decompress(self, data):
        self._data += bytes(data)
        head, end, rest = self._data.partition(b"\0")
        self.eof = bool(end)
        self.unused_data = rest
        whole = head.removeprefix(ZSTD)
        self._data = b"" if self.eof else self._data
        return whole[::2] if self.eof else b""


def doubled(data):
    return ZSTD + bytes(byte for byte in data for _ in range(2)) + b"\0"


def test_package_zstandard_is_used(no_zstd, monkeypatch):
    module = types.ModuleType("zstandard")
    module.ZstdDecompressor = lambda: types.SimpleNamespace(decompressobj=Doubled)
    monkeypatch.setitem(sys.modules, "zstandard", module)
    assert read(doubled(LINES))[0] == read(LINES)[0]
    assert read(doubled(b"the 1 2\n") + doubled(b"of 3 4\n"))[0] == ["the", "of"]
    with pytest.raises(InputError, match="the zstd data is damaged or truncated"):
        read(doubled(LINES)[:-1])


@pytest.mark.parametrize("module", [*compression._ZSTD_MODULES, "zstandard"])
def test_zstd(module, no_zstd, monkeypatch):
    monkeypatch.delitem(sys.modules, module)
    pytest.importorskip(module)
    compress = __import__(module, fromlist=["compress"]).compress
    for data in (compress(LINES), compress(LINES[:1000]) + compress(LINES[1000:])):
        tokens, _, report = read(data)
        assert (len(tokens), report.compression) == (2000, "zstd")
        with pytest.raises(InputError, match="the zstd data is damaged or truncated"):
            read(data[:-5])
