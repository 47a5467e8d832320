import dataclasses
import os
import resource
import signal
import subprocess
import sys

import hypothesis.strategies as st
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings

from smallfry import errors
from smallfry.sfq import file as sfq
from smallfry.sfq.metadata import Metadata
from smallfry.sfq.verify import verify
from smallfry.table import Table
from smallfry.vocabulary import Vocabulary
from tests.helpers.crafted_files import Crafted, rewrite_as_version
from tests.helpers.tables import DIMS, KINDS, PARTS, plain_decode, random_table, tables, vocabularies


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


@given(st.data())
@settings(max_examples=40)
def test_what_is_written_is_mapped_bit_for_bit(folder, data):
    table = data.draw(tables())
    vocabulary = data.draw(vocabularies(table.rows))
    sfq.write(folder / "t.sfq", table, vocabulary)
    file = sfq.map(folder / "t.sfq")
    written, mapped = sfq.arrays(table, vocabulary, None), sfq.arrays(file.table, file.vocabulary, None)
    assert written.keys() == mapped.keys()
    for name, array in written.items():
        assert mapped[name].dtype == array.dtype
        np.testing.assert_array_equal(mapped[name], array)
    for attribute in ("dim", "nbit", "codebook_kind", "clip", "frobenius_error", "rows"):
        assert getattr(file.table, attribute) == getattr(table, attribute)
    assert (file.vocabulary and list(file.vocabulary)) == (vocabulary and list(vocabulary))


@given(st.data())
@settings(max_examples=40)
def test_safetensors_own_reader_opens_every_file(folder, data):
    table = data.draw(tables())
    vocabulary = data.draw(vocabularies(table.rows))
    sfq.write(folder / "s.sfq", table, vocabulary, source={"name": "ß\udcff", "sha256": "0" * 64})
    written = sfq.arrays(table, vocabulary, None)
    loaded = safetensors.numpy.load_file(folder / "s.sfq")
    assert loaded.keys() == written.keys()
    for name, array in written.items():
        np.testing.assert_array_equal(loaded[name], array)
    with safetensors.safe_open(folder / "s.sfq", "numpy") as file:
        assert file.metadata() == sfq.map(folder / "s.sfq").header.metadata


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize(("nbit", "kind"), [(nbit, kind) for nbit in KINDS for kind in KINDS[nbit]])
def test_mapped_table_decodes_as_plain_numpy_does(tmp_path, nbit, kind, dim):
    table = random_table(5, dim, nbit, kind, parts=PARTS)
    sfq.write(tmp_path / "t.sfq", table)
    decoded = sfq.map(tmp_path / "t.sfq").table.decode()
    np.testing.assert_array_equal(decoded.view(np.uint32), plain_decode(table).view(np.uint32))


def test_equal_tables_give_equal_bytes(tmp_path):
    for name in ("a.sfq", "b.sfq"):
        sfq.write(tmp_path / name, random_table(4, 7, 2, "uniform"), Vocabulary.build(list("abcd")))
    assert (tmp_path / "a.sfq").read_bytes() == (tmp_path / "b.sfq").read_bytes()


def test_digest_tells_contents_apart(tmp_path):
    digests = set()
    for seed in (0, 1):
        sfq.write(tmp_path / "t.sfq", random_table(4, 7, 2, "uniform", seed=seed))
        digests.add(sfq.map(tmp_path / "t.sfq").header.digest)
    assert len(digests) == 2


def test_mapped_arrays_are_read_only_and_outlive_the_file(tmp_path):
    table = random_table(4, 7, 2, "uniform")
    sfq.write(tmp_path / "t.sfq", table)
    codes = sfq.map(tmp_path / "t.sfq").table.codes
    (tmp_path / "t.sfq").unlink()
    np.testing.assert_array_equal(codes, table.codes)
    with pytest.raises(ValueError, match="read-only"):
        codes[0] = 0


def test_copy_on_write_arrays_never_change_the_file(tmp_path):
    sfq.write(tmp_path / "t.sfq", random_table(4, 7, 2, "uniform"))
    before = (tmp_path / "t.sfq").read_bytes()
    mapped = sfq.map(tmp_path / "t.sfq", copy_on_write=True).table
    mapped.codes[:] = 0
    assert not mapped.codes.any()
    assert (tmp_path / "t.sfq").read_bytes() == before


def test_file_can_be_replaced_by_what_is_mapped_from_it(tmp_path):
    sfq.write(tmp_path / "t.sfq", random_table(4, 7, 2, "uniform"))
    before = (tmp_path / "t.sfq").read_bytes()
    sfq.write(tmp_path / "t.sfq", sfq.map(tmp_path / "t.sfq").table)
    assert (tmp_path / "t.sfq").read_bytes() == before


def test_vocabulary_of_another_size_is_rejected_before_writing(tmp_path):
    with pytest.raises(errors.InputError, match=r"tokens \(3\) does not match number of rows \(4\)"):
        sfq.write(tmp_path / "t.sfq", random_table(4, 7, 2, "uniform"), Vocabulary.build(list("abc")))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "change",
    [
        {"clip": float("nan")},
        {"zero_rows": np.array([4], np.uint32)},
        {"codebook": np.zeros(3, np.float32)},
        {"codebook_kind": "magic"},
        {"nbit": 3},
        {"column_scale": np.ones(7, np.float32)},
        {"rotation": np.eye(7, dtype=np.float32)},
    ],
)
def test_table_that_no_reader_would_take_is_not_written(tmp_path, change):
    with pytest.raises(errors.SfqError):
        sfq.write(tmp_path / "t.sfq", Table(**(vars(random_table(4, 7, 2, "uniform")) | change)))
    assert os.listdir(tmp_path) == []


def test_full_disk_keeps_the_old_file(tmp_path):
    sfq.write(tmp_path / "t.sfq", random_table(4, 7, 2, "uniform"))
    before = (tmp_path / "t.sfq").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        with pytest.raises(OSError, match="File too large; what was there is unchanged"):
            sfq.write(tmp_path / "t.sfq", random_table(1000, 300, 8, "uniform"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "t.sfq").read_bytes() == before
    assert os.listdir(tmp_path) == ["t.sfq"]


def test_process_killed_while_it_writes_leaves_the_old_file(tmp_path):
    sfq.write(tmp_path / "t.sfq", random_table(4, 7, 2, "uniform"))
    before = (tmp_path / "t.sfq").read_bytes()
    program = (
        "import os, signal, sys\n"
        "from smallfry.sfq import file as sfq\n"
        "table = sfq.map(sys.argv[1]).table\n"
        "os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)\n"
        "sfq.write(sys.argv[1], table, created_by='somebody else')\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, tmp_path / "t.sfq"], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "t.sfq").read_bytes() == before


@pytest.mark.parametrize("version", ["2", "2.1", "2.99"])
def test_later_minor_version_with_unknown_tensors_and_metadata_reads_the_same(tmp_path, version):
    path, words = tmp_path / "t.sfq", ["the", "of", "New York", "ß"]
    table = random_table(4, 7, 2, "uniform", parts=("mean", "row_scale"))
    for layout, vocabulary in ((table, Vocabulary.build(words)), (table.paged(), None)):
        sfq.write(path, layout, vocabulary)
        rewrite_as_version(path, version)
        file = sfq.map(path)
        assert file.header.metadata["version"] == version
        assert "unknown_F8_E4M3" in file.header.tensors
        np.testing.assert_array_equal(file.table.decode(), layout.decode())
        assert verify(path).tokens == (4 if vocabulary else 0)
        if vocabulary:
            assert file.vocabulary.find(words).tolist() == [0, 1, 2, 3]


def drop(name):
    return lambda crafted: crafted.arrays.pop(name)


def put(name, array):
    return lambda crafted: crafted.arrays.__setitem__(name, array)


def say(name, value):
    return lambda crafted: crafted.metadata.__setitem__(name, value)


def claim(name, **entry):
    return lambda crafted: crafted.entries.__setitem__(name, entry)


BROKEN = [
    ("no codes", drop("codes"), errors.MissingTensorError, "'codes' is missing"),
    ("no codebook", drop("codebook"), errors.MissingTensorError, "'codebook' is missing"),
    ("no token index", drop("token_index"), errors.MissingTensorError, "but no token_index"),
    ("no tokens", drop("tokens"), errors.MissingTensorError, "but no tokens"),
    ("no seed", lambda crafted: crafted.metadata.pop("token_hash_seed"), errors.MetadataError, "seed"),
    ("no digest", lambda crafted: setattr(crafted, "digests", False), errors.MetadataError, "SHA-256"),
    ("other nbit", say("nbit", "5"), errors.BitWidthError, "nbit is 5"),
    ("other kind", say("codebook_kind", "magic"), errors.CodebookError, "'magic'"),
    ("codes of floats", put("codes", np.zeros((4, 2), np.float32)), errors.DtypeError, "'F32', expected U8"),
    ("unknown dtype", claim("codes", dtype="I7"), errors.DtypeError, "'I7', expected U8"),
    (
        "short offsets",
        put("token_offsets", np.zeros(4, np.uint64)),
        errors.ShapeError,
        r"\[4\], expected \[5\]",
    ),
    ("more rows", say("rows", "5"), errors.ShapeError, r"\[4, 2\], expected \[5, 2\]"),
    ("most rows", say("rows", str(2**32 - 2)), errors.ShapeError, "4294967294"),
    ("more dims", say("dim", "9"), errors.ShapeError, r"\[4, 2\], expected \[4, 3\]"),
    ("flat codes", claim("codes", shape=[8]), errors.ShapeError, r"\[8\], expected \[4, 2\]"),
    (
        "short codebook",
        put("codebook", np.zeros(3, np.float32)),
        errors.CodebookError,
        r"\[3\], expected \[4\]",
    ),
    (
        "uniform at 3 bits",
        say("nbit", "3"),
        errors.CodebookError,
        "'uniform', expected one of trellis at 3 bits",
    ),
    (
        "codes as windows",
        say("codebook_kind", "trellis"),
        errors.CodebookError,
        "has 4 values, .* from 256 to",
    ),
    ("column scales", put("column_scale", np.ones(5, np.float32)), errors.CodebookError, "has column_scale"),
    ("rotation", put("rotation", np.eye(5, dtype=np.float32)), errors.CodebookError, "has rotation"),
    ("mean of other dim", put("mean", np.zeros(4, np.float32)), errors.ShapeError, r"\[4\], expected \[5\]"),
    ("narrow scale", put("row_scale", np.zeros(3, np.float16)), errors.ShapeError, r"\[3\], expected \[4\]"),
    ("span", claim("tokens", shape=[5]), errors.OffsetError, "spans 4 bytes, .* takes 5"),
    ("huge span", claim("tokens", shape=[2**64 - 1]), errors.OffsetError, "spans 4 bytes"),
    ("unsorted zero rows", put("zero_rows", np.array([3, 1], np.uint32)), errors.ZeroRowsError, "increasing"),
    ("repeated zero rows", put("zero_rows", np.array([1, 1], np.uint32)), errors.ZeroRowsError, "increasing"),
    ("zero row 4", put("zero_rows", np.array([1, 4], np.uint32)), errors.ZeroRowsError, "names row 4"),
    (
        "offsets from 1",
        put("token_offsets", np.array([1, 1, 2, 3, 4], np.uint64)),
        errors.TokenTableError,
        "1 to 4",
    ),
    (
        "offsets to 5",
        put("token_offsets", np.array([0, 1, 2, 3, 5], np.uint64)),
        errors.TokenTableError,
        "0 to 5",
    ),
    ("few slots", put("token_index", np.zeros(3, np.uint32)), errors.TokenTableError, "3 slots"),
]


@pytest.mark.parametrize(
    ("change", "error", "message"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN]
)
def test_broken_rule_is_rejected_by_its_own_error(tmp_path, change, error, message):
    crafted = Crafted()
    change(crafted)
    crafted.add()
    (tmp_path / "t.sfq").write_bytes(crafted.raw())
    with pytest.raises(error, match=rf"t\.sfq: .*{message}"):
        sfq.map(tmp_path / "t.sfq")


@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        ({"codebook": np.zeros(0, np.float32)}, errors.CodebookError, "has 0 values"),
        ({"codebook": np.zeros(1, np.float32)}, errors.CodebookError, "has 1 values"),
        ({"codebook": np.zeros(255, np.float32)}, errors.CodebookError, "has 255 values"),
        ({"codebook": np.zeros(2**7, np.float32)}, errors.CodebookError, "has 128 values"),
        ({"codebook": np.zeros(2**17, np.float32)}, errors.CodebookError, "has 131072 values"),
        ({"codebook": np.zeros((1, 256), np.float32)}, errors.CodebookError, r"\[1, 256\], expected \[any\]"),
        ({"codebook": np.zeros(2**11, np.float32)}, errors.CodebookError, "have 10 bits .* needs 11"),
        ({"column_scale": np.ones(4, np.float32)}, errors.ShapeError, r"\[4\], expected \[5\]"),
        ({"column_scale": np.ones(5, np.float16)}, errors.DtypeError, "expected F32"),
        ({"rotation": np.ones((5, 4), np.float32)}, errors.ShapeError, r"\[5, 4\], expected \[5, 5\]"),
    ],
)
def test_part_that_does_not_fit_trellis_codes_is_rejected(tmp_path, arrays, error, message):
    crafted = Crafted.trellis()
    crafted.add(**arrays)
    (tmp_path / "t.sfq").write_bytes(crafted.raw())
    with pytest.raises(error, match=rf"t\.sfq: .*{message}"):
        sfq.map(tmp_path / "t.sfq")


@pytest.mark.parametrize("crafted", [Crafted(), Crafted.trellis(), Crafted.trellis(1024)])
def test_crafted_file_breaks_no_rule(tmp_path, crafted):
    (tmp_path / "t.sfq").write_bytes(crafted.raw())
    assert sfq.map(tmp_path / "t.sfq").table.rows == 4


def test_rotation_is_not_read_before_it_is_used(tmp_path):
    crafted = Crafted.trellis()
    crafted.add(rotation=np.full((5, 5), np.nan, np.float32))
    (tmp_path / "t.sfq").write_bytes(crafted.raw())
    assert np.isnan(sfq.map(tmp_path / "t.sfq").table.rotation).all()


def test_tensor_off_its_alignment_is_rejected(tmp_path):
    crafted = Crafted()
    crafted.arrays = {"a": np.zeros(1, np.uint8)} | crafted.arrays
    (tmp_path / "t.sfq").write_bytes(crafted.raw())
    with pytest.raises(errors.AlignmentError, match="not a multiple of 4"):
        sfq.map(tmp_path / "t.sfq")


def test_32_bit_table_with_a_codebook_is_rejected(tmp_path):
    crafted = Crafted()
    crafted.arrays["codes"] = np.zeros((4, 5), np.float32)
    crafted.metadata |= {"nbit": "32", "codebook_kind": "float"}
    (tmp_path / "t.sfq").write_bytes(crafted.raw())
    with pytest.raises(errors.CodebookError, match="expected none"):
        sfq.map(tmp_path / "t.sfq")


def test_empty_file_is_rejected(tmp_path):
    (tmp_path / "t.sfq").touch()
    with pytest.raises(errors.TruncatedError, match="0 bytes"):
        sfq.map(tmp_path / "t.sfq")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"t\.sfq"):
        sfq.map(tmp_path / "t.sfq")


def test_directory_is_rejected(tmp_path):
    with pytest.raises(IsADirectoryError, match=r"expected a \.sfq file"):
        sfq.map(tmp_path)


def test_named_pipe_is_rejected_without_waiting_for_a_writer(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="Not a regular file"):
        sfq.map(tmp_path / "pipe")


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="needs Linux's /proc")
def test_error_of_reading_names_the_file():
    with pytest.raises(OSError, match="Input/output error: '/proc/self/mem'"):
        sfq.map("/proc/self/mem")


@pytest.mark.parametrize("name", ["codebook", "mean", "column_scale"])
def test_values_that_are_not_finite_are_rejected(tmp_path, name):
    crafted = Crafted.trellis()
    crafted.add(mean=np.zeros(5, np.float32))
    crafted.arrays[name][1] = np.nan
    (tmp_path / "t.sfq").write_bytes(crafted.raw())
    with pytest.raises(errors.CodeError, match=f"t.sfq: {name} has NaN or infinity"):
        sfq.map(tmp_path / "t.sfq")


def test_file_that_is_truncated_while_it_is_opened_is_rejected(tmp_path, monkeypatch):
    path = tmp_path / "t.sfq"
    path.write_bytes(Crafted().raw())
    parse = Metadata.parse

    def truncate(strings):
        os.truncate(path, 4096)
        return parse(strings)

    monkeypatch.setattr(Metadata, "parse", truncate)
    with pytest.raises(errors.TruncatedError, match="truncated while it was opened"):
        sfq.map(path)


@given(st.data())
@settings(max_examples=40)
def test_paged_table_decodes_as_the_table_does(folder, data):
    table = data.draw(tables())
    if table.nbit == 32:
        return
    sfq.write(folder / "p.sfq", table.paged())
    mapped = sfq.map(folder / "p.sfq").table
    assert mapped.rows == table.rows
    np.testing.assert_array_equal(mapped.decode(), plain_decode(table))


def test_pages_of_a_paged_table_are_pages_of_the_file(tmp_path):
    table = random_table(1000, 160, 3, "trellis", parts=PARTS)
    heads = np.array([0, 10, 1000], np.uint64)
    sfq.write(tmp_path / "t.sfq", dataclasses.replace(table.paged(), head_offsets=heads))
    file = sfq.map(tmp_path / "t.sfq")
    entry = file.header.tensors["codes"]
    assert (file.header.data_start + entry.begin) % 4096 == 0
    assert entry.shape == (-(-1000 // 66), 4096)
    np.testing.assert_array_equal(file.table.head_offsets, heads)
    assert safetensors.numpy.load_file(tmp_path / "t.sfq").keys() == file.header.tensors.keys()


def test_words_of_a_paged_table_are_rejected(tmp_path):
    check_words_are_rejected(tmp_path, random_table(3, 5, 2, "uniform").paged())


def test_words_of_a_table_with_heads_are_rejected(tmp_path):
    table = random_table(3, 5, 2, "uniform")
    check_words_are_rejected(tmp_path, dataclasses.replace(table, head_offsets=np.array([0, 3], np.uint64)))


def check_words_are_rejected(tmp_path, table):
    with pytest.raises(errors.InputError, match="row numbers only"):
        sfq.write(tmp_path / "t.sfq", table, Vocabulary.build(["a", "b", "c"]))
    assert not (tmp_path / "t.sfq").exists()
