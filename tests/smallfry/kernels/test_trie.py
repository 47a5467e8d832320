"""The double-array trie: keys and values that it returns, and keys that it cannot hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from smallfry import kernels
from smallfry.errors import InputError

pytestmark = pytest.mark.skipif(not kernels.native, reason="needs the native module")

NONE = 2**32 - 1


def pack(keys: list[bytes]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    offsets = np.cumsum([0, *map(len, keys)], dtype=np.int64)
    return np.frombuffer(b"".join(keys), np.uint8), offsets


def build(keys: list[bytes], values: list[int] | None = None) -> NDArray[np.uint32]:
    units: NDArray[np.uint32] = kernels.build_trie(
        *pack(keys), np.array(range(len(keys)) if values is None else values, np.uint32)
    )
    return units


def find(units: NDArray[np.uint32], keys: list[bytes]) -> list[int]:
    found: list[int] = kernels.find_in_trie(units, *pack(keys)).tolist()
    return found


@given(st.lists(st.binary(min_size=1, max_size=6).filter(lambda key: 0 not in key), unique=True), st.data())
def test_a_trie_holds_its_keys_and_no_others(keys: list[bytes], data: st.DataObject) -> None:
    units = build(keys)
    assert find(units, keys) == list(range(len(keys)))
    others = data.draw(st.lists(st.binary(max_size=7)))
    assert find(units, others) == [keys.index(key) if key in keys else NONE for key in others]


def test_a_trie_of_many_keys_with_random_values() -> None:
    rng = np.random.default_rng(0)
    keys = list({rng.integers(1, 256, rng.integers(1, 9), dtype=np.uint8).tobytes() for _ in range(30_000)})
    values = rng.integers(0, 2**31, len(keys)).tolist()
    assert find(build(keys, values), keys) == values


def test_units_have_the_layout_of_darts_clone() -> None:
    units = build([b"a", b"ab"], [7, 9])

    def offset(unit: int) -> int:
        return unit >> 10 << ((unit & 512) >> 6)

    at = offset(int(units[0])) ^ ord("a")
    node = int(units[at])
    assert node & 0x800000FF == ord("a")
    assert node & 256
    children = at ^ offset(node)
    assert units[children] == 7 | 1 << 31
    assert int(units[children ^ ord("b")]) & 0x800000FF == ord("b")


@pytest.mark.parametrize(
    ("keys", "values", "message"),
    [
        ([b"a", b""], [0, 1], "key 1 is empty"),
        ([b"a\0"], [0], "key 0 holds a NUL"),
        ([b"a" * 1025], [0], "key 0 has 1025 bytes, expected at most 1024"),
        ([b"b", b"a", b"b"], [0, 1, 2], "keys 0 and 2 are equal"),
        ([b"a"], [2**31], "the value of key 0 is 2147483648"),
    ],
)
def test_keys_that_a_trie_cannot_hold(keys: list[bytes], values: list[int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(keys, values)


@given(st.lists(st.integers(0, 2**32 - 1), max_size=600), st.lists(st.binary(max_size=50)))
def test_a_walk_stays_within_any_units(units: list[int], keys: list[bytes]) -> None:
    find(np.array(units, np.uint32), keys)
