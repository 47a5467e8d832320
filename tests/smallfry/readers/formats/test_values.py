import numpy as np
import pytest

from smallfry.readers.formats.values import to_float32
from smallfry.sfq.safetensors import DTYPES


def test_float8_e4m3_values():
    codes = np.array([0x00, 0x80, 0x01, 0x08, 0x38, 0xB8, 0x7E, 0x7F, 0xFF], np.uint8)
    expected = [0, -0.0, 2**-9, 2**-6, 1, -1, 448, np.nan, np.nan]
    values = to_float32(codes.view(DTYPES["F8_E4M3"]))
    np.testing.assert_array_equal(values, np.array(expected, np.float32))
    assert np.signbit(values[1])


@pytest.mark.parametrize(
    ("name", "torch_name"),
    [("F8_E4M3", "float8_e4m3fn"), ("F8_E5M2", "float8_e5m2"), ("F8_E8M0", "float8_e8m0fnu")],
)
def test_every_float8_value_is_the_one_of_torch(name, torch_name):
    torch = pytest.importorskip("torch")
    codes = np.arange(256, dtype=np.uint8)
    expected = torch.from_numpy(codes).view(getattr(torch, torch_name)).float().numpy()
    np.testing.assert_array_equal(to_float32(codes.view(DTYPES[name])), expected)


def test_bfloat16_is_the_upper_half_of_float32():
    values = np.array([1.5, -0.0, np.inf], np.float32)
    stored = (values.view(np.uint32) >> 16).astype("<u2").view(DTYPES["BF16"])
    np.testing.assert_array_equal(to_float32(stored), values)


def test_value_beyond_float32_becomes_infinite():
    assert to_float32(np.array([1e300]))[0] == np.inf
