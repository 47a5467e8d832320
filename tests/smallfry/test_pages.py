import mmap

import numpy as np
import pytest

from smallfry.pages import drop_pages

SIZE = 64 << 20


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * mmap.PAGESIZE


@pytest.fixture
def file(tmp_path):
    with open(tmp_path / "f", "wb+") as file:
        file.truncate(SIZE)
        yield file


def test_pages_of_a_read_only_map_are_released_and_read_again(file):
    file.write(b"abc")
    file.flush()
    array = np.frombuffer(mmap.mmap(file.fileno(), SIZE, access=mmap.ACCESS_READ), np.uint8)[1:]
    assert array.sum() == 98 + 99
    before = resident()
    drop_pages(array)
    assert resident() < before - SIZE // 2
    assert array[:2].tolist() == [98, 99]


def test_changes_of_a_copy_on_write_map_stay(file):
    array = np.frombuffer(mmap.mmap(file.fileno(), SIZE, access=mmap.ACCESS_COPY), np.uint8)
    array[0] = 7
    array.flags.writeable = False
    drop_pages(array)
    assert array[0] == 7


def test_array_in_memory_stays():
    array = np.arange(3)
    drop_pages(array)
    assert array.tolist() == [0, 1, 2]
