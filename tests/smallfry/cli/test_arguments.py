import pytest

from smallfry import cli, console


def parse(line, *words):
    return cli.parser().parse_args([*line.split(), *words])


def fail(capsys, line):
    with pytest.raises(SystemExit) as exit:
        parse(line)
    assert exit.value.code == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and len(message) <= console.MAX_MESSAGE
    return message


@pytest.mark.parametrize(
    "line",
    [
        "evaluate v.txt --nbits 1 w.sfq x.sfq --json",
        "evaluate --nbits 1 v.txt w.sfq --json x.sfq",
        "evaluate v.txt w.sfq x.sfq --json --nbits=1",
        "evaluate --json v.txt w.sfq --nbits 1 -- x.sfq",
        "evaluate --js v.txt w.sfq --nbit 1 x.sfq",
    ],
)
def test_options_and_positionals_come_in_any_order(line):
    arguments = parse(line)
    assert (arguments.original, arguments.compressed) == ("v.txt", ["w.sfq", "x.sfq"])
    assert (arguments.nbits, arguments.json) == ([1], True)


@pytest.mark.parametrize(
    ("line", "tokens"),
    [
        ("lookup d.sfq -- --", ["--"]),
        ("lookup d.sfq -- -- --", ["--", "--"]),
        ("lookup -- d.sfq --json", ["--json"]),
        ("lookup d.sfq -lrb- --json -LRB- -", ["-lrb-", "-LRB-", "-"]),
        ("lookup --json d.sfq a -1 -- -k", ["a", "-1", "-k"]),
        ("lookup d.sfq -hat-", ["-hat-"]),
        ("neighbors d.sfq -k 5 -king- -k5", ["-king-"]),
        ("lookup d.sfq", []),
    ],
)
def test_tokens_may_begin_with_a_dash(line, tokens):
    arguments = parse(line)
    assert (arguments.file, arguments.tokens) == ("d.sfq", tokens)
    assert getattr(arguments, "k", 5) == 5


@pytest.mark.parametrize("token", ["", " ", "a b", "\n", "\udcff"])
def test_a_token_is_any_string(token):
    assert parse("lookup d.sfq", token).tokens == [token]


@pytest.mark.parametrize(
    "line", ["compress a -o b", "compress -ob a", "compress --out b a", "compress a --output=b"]
)
def test_values_of_options_may_be_attached(line):
    arguments = parse(line)
    assert (arguments.input, arguments.output) == ("a", "b")


def test_a_value_may_begin_with_a_dash():
    assert parse("compress -o -x=y.sfq - --words -w").words == "-w"
    assert parse("compress -o -x=y.sfq -").output == "-x=y.sfq"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("lookup d.sfq --jsno", "smallfry lookup: error: unrecognized option --jsno: did you mean --json?"),
        ("lookup d.sfq ---", "unrecognized option ---: write -- before a word that begins with a dash"),
        ("info -x.sfq", "unrecognized option -x.sfq"),
        ("info a b", "unrecognized arguments: b;"),
        ("compress a -o --nbit 2", "-o/--output: expected one argument"),
        ("compress a -o", "-o/--output: expected one argument"),
        ("compress a -o b --ro x", "--ro is ambiguous, expected one of --rotate, --row-scale, --rounding"),
        ("info a --json=1", "ignored explicit argument '1'"),
        ("compress a -o b --nbit 2 --max-error 0.1", "not allowed with argument --nbit"),
        ("compress a -o b --words w --no-words", "not allowed with argument --words"),
        ("info a " + "b" * 5000, "…"),
        ("info --x" + "y" * 5000, "write -- before a word"),
    ],
)
def test_an_invalid_command_line_says_what_is_wrong(capsys, line, words):
    message = fail(capsys, line)
    assert words in message
    assert message.endswith("--help\n")
