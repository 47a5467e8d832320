"""Parsing of lines and validation of UTF-8, native and NumPy."""

import base64
import math
import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smallfry import kernels
from smallfry.errors import InputError
from smallfry.kernels.numpy import text as numpy_text
from smallfry.kernels.numpy.text import ParsedLines, Problem

native_text = pytest.importorskip("smallfry._native") if kernels.native else numpy_text
modules = pytest.mark.parametrize("module", [native_text, numpy_text], ids=["native", "numpy"])

digits = st.text("0123456789", max_size=25)
numbers = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.floats(width=32, allow_nan=False, allow_infinity=False).map(repr),
    st.floats(-10, 10).map(lambda value: f"{value:.5g}"),
    st.builds(
        "{}{}.{}{}".format,
        st.sampled_from(["", "+", "-"]),
        digits,
        digits.filter(len),
        st.one_of(st.just(""), st.builds("{}{}".format, st.sampled_from("eE"), st.integers(-400, 400))),
    ),
    st.builds("{}{}".format, digits.filter(len), st.sampled_from(["", ".", "e5", "E-3", "e+07"])),
)
words = "a the é \xa0 \x00 1 -2.5 3. .5e1 x1 nan -inf 1_0 0x1 \x0b \x1c".split(" ")
pieces = st.sampled_from(
    [*words, "", " ", " ", "  ", "\t", "\r", "\n", "\n", "\r\n", ",", ",", '"', '""', "\\"]
)
dialects = st.tuples(st.sampled_from([0, *b",;\t"]), st.booleans(), st.booleans())


def parse(module, text, dim, *dialect):
    if isinstance(text, str):
        text = text.encode()
    return ParsedLines(*module.parse_lines(np.frombuffer(text, np.uint8), dim, *dialect))


def same_bits(a, b):
    return np.array_equal(
        np.asarray(a, np.float32).view(np.uint32), np.asarray(b, np.float32).view(np.uint32)
    )


def expected_float32(number):
    with np.errstate(over="ignore"):
        return np.float64(float(number)).astype(np.float32)


@modules
@given(numbers=st.lists(numbers, min_size=1, max_size=20))
def test_value_has_the_bits_of_float32_of_python_float(module, numbers):
    parsed = parse(module, f"token {' '.join(numbers)}\n", len(numbers))
    assert same_bits(parsed.vectors[0], [expected_float32(number) for number in numbers])


@modules
@pytest.mark.parametrize(
    "number",
    [
        *"0 -0 +.5 1. 1e-5 1E5 00012 1e-400 1e400 -1e39 nan -NaN Infinity inf +INF 5e-324 1e22 1e23".split(),
        *"8.5e-46 9007199254740993 1.7976931348623157e308 1e99999999999999999999".split(),
        "0.1234567890123456789012345678901234567890",
        "123456789012345678901234567890",
        "0." + "0" * 400 + "1",
        "1" + "0" * 400,
        "16777217.0000000001",
    ],
)
def test_plain_number_equals_that_of_python(module, number):
    value = parse(module, f"token {number}\n", 1).vectors[0, 0]
    expected = expected_float32(number)
    assert math.isnan(value) if math.isnan(expected) else same_bits(value, expected)


@modules
@pytest.mark.parametrize(
    "field",
    "1_000|0x1p3|1,5||.|-|+-1|1e|1e+|e5|1.2.3|--1|infinit|nane|١|1\x0b|1\x00|true|1f|NaN()|1e5.0".split("|"),
)
def test_other_fields_are_not_numbers(module, field):
    parsed = parse(module, f"token 1 {field} 1\n", 3)
    assert len(parsed.vectors) == 0
    problem = Problem.NOT_A_NUMBER if field else Problem.TOO_FEW
    assert parsed.problems.tolist() == [[0, problem, 1 if field else 2]]


@given(st.lists(pieces, max_size=60), st.integers(1, 3), dialects)
def test_native_and_numpy_agree_on_any_text(pieces, dim, dialect):
    text = "".join(pieces) + "\n"
    native, numpy = (parse(module, text, dim, *dialect) for module in (native_text, numpy_text))
    for name in ParsedLines._fields:
        a, b = getattr(native, name), getattr(numpy, name)
        if name == "vectors":
            assert a.shape == b.shape
            assert np.array_equal(np.isnan(a), np.isnan(b))
            assert same_bits(np.nan_to_num(a, nan=0), np.nan_to_num(b, nan=0))
        else:
            np.testing.assert_array_equal(a, b, err_msg=name)


@modules
def test_empty_and_malformed_lines_are_counted(module):
    parsed = parse(module, "a 1 2\n\nb 1\n \t\nc 3 4\r\nd 1 x\n", 2)
    assert parsed.lines.tolist() == [0, 4]
    assert parsed.problems.tolist() == [[2, Problem.TOO_FEW, 1], [5, Problem.NOT_A_NUMBER, 1]]
    assert (parsed.line_count, parsed.empty, parsed.crlf) == (6, 2, 1)


@modules
def test_last_fields_are_the_vector_and_the_rest_the_token(module):
    parsed = parse(module, ". . 1 2\nroute 66 1 2\nNew\tYork  1\t2 \n a  b 1 2\n2010 1 2\n", 2)
    assert parsed.vectors.tolist() == [[1, 2]] * 5
    assert parsed.buf.tobytes() == b". .route 66New\tYorka  b2010"
    assert parsed.offsets.tolist() == [0, 3, 11, 19, 23, 27]
    assert parsed.spaced == 4


@modules
def test_additional_value_is_not_part_of_the_token(module):
    assert parse(module, "a 0.5 1 2\n", 2).problems.tolist() == [[0, Problem.TOO_MANY, 3]]


@modules
@pytest.mark.parametrize(
    ("text", "token"),
    [
        (" 1 2\n", b""),
        ("  1 2\n", b" "),
        ("\t 1  2 \n", b"\t"),
        ("\n 1 2\n", b"\n"),
        ("\n\n 1 2\r\n", b"\n\n"),
    ],
)
def test_values_after_a_separator_have_a_blank_token(module, text, token):
    parsed = parse(module, text, 2)
    assert parsed.vectors.tolist() == [[1, 2]]
    assert (parsed.buf.tobytes(), parsed.empty) == (token, 0)


@modules
def test_indented_line_with_too_few_values_is_malformed(module):
    assert parse(module, " a 1\n", 2).problems.tolist() == [[0, Problem.TOO_FEW, 1]]


@modules
@pytest.mark.parametrize(
    ("line", "token"),
    [
        ("a,1,2", "a"),
        (" New York , 1 , 2,", " New York "),
        (",,1,2", ","),
        (",1,2", ""),
        ('"a, b",1,2', "a, b"),
        ('"say ""a""","1","2"', 'say "a"'),
        ('"0.5,x",1,2', "0.5,x"),
        ('"\\",1,2', "\\"),
        ('a"b",1,2', 'a"b"'),
    ],
)
def test_delimited_line_keeps_its_token(module, line, token):
    parsed = parse(module, line + "\n", 2, ord(","), True, True)
    assert parsed.vectors.tolist() == [[1, 2]]
    assert parsed.buf.tobytes().decode() == token
    assert parsed.unquoted == line.startswith('"')


@modules
def test_backslash_escapes_quotes_between_spaces(module):
    parsed = parse(module, '"say \\"a\\"" 1 2\n"b" "3" 4\n', 2, 0, True, True)
    assert parsed.buf.tobytes() == b'say "a"b'
    assert parsed.vectors.tolist() == [[1, 2], [3, 4]]


@modules
def test_lines_without_tokens_have_only_values(module):
    parsed = parse(module, "1 2\n 3\t4 \n5\n6 7 8\na 9\n", 2, 0, False)
    assert parsed.vectors.tolist() == [[1, 2], [3, 4]]
    assert parsed.offsets.tolist() == [0, 0, 0]
    problems = [[2, Problem.TOO_FEW, 1], [3, Problem.TOO_MANY, 3], [4, Problem.NOT_A_NUMBER, 0]]
    assert parsed.problems.tolist() == problems


@modules
def test_only_spaces_and_tabs_separate(module):
    token = "a\xa0b\u2003c\x0bd\x1ce\x85\u2028\r\x00"
    parsed = parse(module, f"{token} 1\n", 1)
    assert parsed.buf.tobytes().decode() == token
    assert parsed.spaced == 0


@modules
def test_empty_text_has_no_rows(module):
    parsed = parse(module, "", 3)
    assert parsed.vectors.shape == (0, 3)
    assert parsed.offsets.tolist() == [0]


@modules
@pytest.mark.parametrize(("text", "dim"), [(b"a 1", 1), (b"a 1\n", 0)])
def test_unterminated_text_and_zero_dim_are_rejected(module, text, dim):
    with pytest.raises(InputError, match="ends with a newline"):
        parse(module, text, dim)


@modules
def test_dim_larger_than_the_text_allocates_no_memory(module):
    assert parse(module, "a 1 2\nb\n", 2**40).problems.tolist() == [[0, 0, 2], [1, 0, 0]]


def format_values(module, values):
    buf, offsets = module.format_rows(np.array(values, np.float32).reshape(-1, 1))
    text = buf.tobytes().decode()
    return [text[begin:end] for begin, end in pairwise(offsets.tolist())]


@modules
def test_values_have_their_shortest_digits(module):
    texts = ["0.0", "-0.0", "1.0", "0.1", "-0.3", "0.0001", "1e-05", "1.5e-05", "123456790.0", "1e+16"]
    texts += ["1000000000000000.0", "3.4028235e+38", "1e-45", "1.1754944e-38", "inf", "-inf", "nan"]
    assert format_values(module, [float(text) for text in texts]) == texts


@modules
@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1))
def test_formatted_values_round_trip(module, values):
    found = np.array(format_values(module, values), np.float32)
    np.testing.assert_array_equal(found.view(np.uint32), np.array(values, np.float32).view(np.uint32))


def test_both_modules_format_every_power_of_two_and_its_neighbors_alike():
    powers = np.float32(2) ** np.arange(-149, 128, dtype=np.float32)
    values = [powers, np.nextafter(powers, np.float32(0)), np.nextafter(powers, np.float32(np.inf))]
    assert format_values(native_text, values) == format_values(numpy_text, values)


def json_values(module, values):
    buf, _ = module.format_json(np.array(values, np.float32).reshape(1, -1))
    text = buf.tobytes().decode()
    assert text.startswith("[") and text.endswith("],")
    return text[1:-2].split(",")


@modules
def test_json_values_have_their_shortest_digits(module):
    texts = ["0.0", "-0.0", "1.0", "0.1", "-0.3", "0.0001", "0.000015", "-0.000001", "9.9e-7", "123456790.0"]
    texts += ["16777216.0", "-1000000000000.0", "1e+13", "3.4028235e+38", "1e-45", "-1.1754944e-38"]
    assert json_values(module, [float(text) for text in texts]) == texts


@modules
def test_json_has_null_for_values_that_are_not_finite(module):
    assert json_values(module, [np.nan, np.inf, -np.inf, 1]) == ["null", "null", "null", "1.0"]


@modules
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_json_values_round_trip(module, values):
    found = np.array(json_values(module, values), np.float32)
    np.testing.assert_array_equal(found.view(np.uint32), np.array(values, np.float32).view(np.uint32))


@pytest.mark.parametrize("format", [format_values, json_values])
def test_both_modules_format_values_of_any_bits_alike(format):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 1 << 32, 20_000, np.uint32).view(np.float32)
    usual = rng.normal(0, 10.0 ** rng.integers(-9, 9, 20_000)).astype(np.float32)
    values = np.concatenate([values, usual])
    assert format(native_text, values) == format(numpy_text, values)


@pytest.mark.parametrize("distinct", [1, 4, 100, 5000])
def test_repeated_values_have_the_same_json(distinct):
    rng = np.random.default_rng(distinct)
    levels = rng.normal(size=distinct).astype(np.float32)
    codes = rng.integers(0, distinct, 50_000)
    texts = json_values(numpy_text, levels)
    assert json_values(native_text, levels[codes]) == [texts[code] for code in codes]


@modules
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (2, 3)])
def test_json_has_an_array_and_a_comma_for_each_row(module, shape):
    row = f"[{','.join(['1.0'] * shape[1])}],"
    buf, offsets = module.format_json(np.ones(shape, np.float32))
    assert buf.tobytes().decode() == row * shape[0]
    assert offsets.tolist() == [len(row) * i for i in range(shape[0] + 1)]


@modules
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (2, 3)])
def test_spaces_separate_the_values_of_a_row(module, shape):
    buf, offsets = module.format_rows(np.ones(shape, np.float32))
    rows = [" ".join(["1.0"] * shape[1])] * shape[0]
    assert buf.tobytes().decode() == "".join(rows)
    assert offsets.tolist() == [len("".join(rows[:i])) for i in range(shape[0] + 1)]


@modules
@pytest.mark.parametrize("dim", [0, 1, 2, 3, 64, 301])
def test_rows_in_base64_are_those_of_python(module, dim):
    vectors = np.random.default_rng(dim).integers(0, 1 << 32, (5, dim), np.uint32).view(np.float32)
    encoded = module.encode_base64(vectors)
    assert [row.tobytes() for row in encoded] == [base64.b64encode(row.tobytes()) for row in vectors]
    assert module.encode_base64(vectors[:0]).shape == (0, encoded.shape[1])


@modules
@given(tokens=st.lists(st.binary(max_size=12), max_size=20))
def test_invalid_utf8_agrees_with_python(module, tokens):
    def decodes(token):
        try:
            return token.decode() is not None
        except UnicodeDecodeError:
            return False

    offsets = np.cumsum([0, *map(len, tokens)]).astype(np.int64)
    invalid = module.invalid_utf8(np.frombuffer(b"".join(tokens), np.uint8), offsets)
    assert invalid.tolist() == [i for i, token in enumerate(tokens) if not decodes(token)]


@modules
@pytest.mark.parametrize(
    "token",
    [
        *(b"\xc0\x80", b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xed\xa0\x80", b"\xf0\x8f\xbf\xbf"),
        *(b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\x80", b"\xe2\x82", b"abcdefg\xff", b"abcdefgh\xc3"),
    ],
)
def test_ill_formed_sequences_are_invalid(module, token):
    assert module.invalid_utf8(np.frombuffer(token, np.uint8), np.array([0, len(token)])).tolist() == [0]


@modules
@given(json=st.text(alphabet='",:[]{}\\ a', max_size=40).map(str.encode))
def test_values_are_counted_outside_of_strings(module, json):
    outside = re.sub(rb'"[^"]*("|$)', b"", re.sub(rb'\\[\\"]', b"", json))
    assert module.count_values(json) == sum(map(outside.count, (b",", b"[", b"{")))
