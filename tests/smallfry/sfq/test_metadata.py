import hypothesis.strategies as st
import pytest
from hypothesis import given

from smallfry.errors import BitWidthError, CodebookError, MetadataError
from smallfry.sfq.metadata import MAX_ROWS, Metadata
from smallfry.table import MAX_DIM

GOOD = Metadata(4, 5, 2, "uniform", 1.5, 0.25).strings()

sizes = st.integers(1, MAX_ROWS), st.integers(1, MAX_DIM)
magnitudes = st.floats(0, allow_infinity=False)
kinds = st.sampled_from([(1, "uniform"), (3, "trellis"), (8, "exact"), (32, "float")])


@given(*sizes, kinds, magnitudes, magnitudes, st.none() | st.integers(0, 2**64 - 1))
def test_values_survive_as_strings_exactly(rows, dim, kind, clip, error, seed):
    metadata = Metadata(rows, dim, *kind, clip, error, seed)
    assert Metadata.parse(metadata.strings()) == metadata


def test_unknown_metadata_is_ignored():
    assert Metadata.parse(GOOD | {"mood": "good"}) == Metadata.parse(GOOD)


@pytest.mark.parametrize("name", ["rows", "dim", "nbit", "codebook_kind", "clip", "frobenius_error"])
def test_metadata_that_is_missing_is_named(name):
    with pytest.raises(MetadataError, match=name):
        Metadata.parse({key: value for key, value in GOOD.items() if key != name})


@pytest.mark.parametrize("value", ["", "0", "-1", "+1", " 1", "1_0", "1.0", "0x1", "٣", "9" * 20, "1" * 5000])
@pytest.mark.parametrize("name", ["rows", "dim"])
def test_size_that_is_not_a_size_is_rejected(name, value):
    with pytest.raises(MetadataError, match=rf"'{name}' is .* expected an integer from 1"):
        Metadata.parse(GOOD | {name: value})


@pytest.mark.parametrize("value", ["", "nan", "inf", "-1.0", "1e999", "1_0", " 1", "0x1", "1" * 5000])
@pytest.mark.parametrize("name", ["clip", "frobenius_error"])
def test_number_that_is_not_a_finite_magnitude_is_rejected(name, value):
    with pytest.raises(MetadataError, match=rf"'{name}' is .* expected a finite number"):
        Metadata.parse(GOOD | {name: value})


@pytest.mark.parametrize("nbit", ["0", "5", "64"])
def test_another_bit_width_is_rejected(nbit):
    with pytest.raises(BitWidthError, match=rf"nbit is {nbit}, expected one of 1, 2, 3, 4, 8, 16, 32"):
        Metadata.parse(GOOD | {"nbit": nbit})


@pytest.mark.parametrize(
    ("nbit", "kind"), [("2", "magic"), ("2", "float"), ("32", "uniform"), ("8", "trellis"), ("3", "uniform")]
)
def test_codebook_that_does_not_fit_the_bit_width_is_rejected(nbit, kind):
    with pytest.raises(CodebookError, match=rf"'{kind}'.* at {nbit} bits"):
        Metadata.parse(GOOD | {"nbit": nbit, "codebook_kind": kind})


def test_rows_that_are_very_wide_are_rejected():
    assert Metadata.parse(GOOD | {"dim": str(MAX_DIM)}).dim == 65_536
    with pytest.raises(MetadataError, match="'dim' is '65537', expected an integer from 1 to 65536"):
        Metadata.parse(GOOD | {"dim": str(MAX_DIM + 1)})
