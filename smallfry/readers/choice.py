"""Which tensor of a file holds the token embeddings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from smallfry.errors import InputError
from smallfry.readers.listing import MAX_MESSAGE, cut, listing

_LIKELY = frozenset(
    (
        *("embed_tokens", "tok_embeddings", "tok_embedding", "token_embeddings", "token_embedding"),
        *("word_embeddings", "word_embedding", "wordEmbeddings", "wte", "embed_in", "tokens_embed"),
        *("shared", "embeddings", "embedding", "embed", "token_embd", "emb"),
    )
)
"""Last parts of the names of token embeddings, without `_SUFFIXES`."""

_SUFFIXES = (".weight._data", ".weight")  # the first by optimum-quanto
_IN_LAYER = re.compile(r"\.\d+\.")


def choose_tensor(
    file: str,
    tensors: Mapping[str, str],
    *,
    named: str | None,
    tables: Iterable[str],
    readable: Sequence[str],
    noun: str = "floating-point matrices",
    hint: str = "",
) -> str:
    """Return the tensor called `named`, or the one that holds the token embeddings.

    Parameters
    ----------
    file : str
        File name, for messages.
    tensors : mapping
        Names of all tensors, with what messages tell of each.
    named : str, optional
        The name, or its end after a dot; ``.weight`` may be left out.
    tables : iterable of str
        Tensors that may be chosen for their name.
    readable : sequence of str
        Tensors one of which is chosen if it is the only one.
    noun : str
        What `readable` are, for messages.
    hint : str
        Sentence for messages: where else the tensor may be.

    Raises
    ------
    InputError
        No tensor, or several, are possible.
    """
    if named is not None:
        found = _with_name(named, tensors)
        if len(found) == 1:
            return found[0]
        if found:
            problem = f"{file} has {len(found):,} tensors whose names end in {cut(named, 80)!r}: "
            raise _error(problem, tensors, found, ". Please give more of the name with tensor= (--tensor).")
        similar = [name for name in tensors if named.lower() in name.lower()]
        names = list(dict.fromkeys([*similar, *_likely(tensors), *tensors]))
        raise _error(
            f"{file} has no tensor {cut(named, 80)!r}. It has ", tensors, names, f". {hint}".rstrip()
        )
    likely = _likely(tables)
    if len(likely) == 1:
        return likely[0]
    if len(readable) == 1:
        return readable[0]
    names = list(dict.fromkeys([*likely, *readable])) or list(tensors)
    problem = f"{file} has {len(readable):,} {noun}, expected one: "
    raise _error(
        problem, tensors, names, f". {hint or 'Please name the one to read with tensor= (--tensor).'}"
    )


def _with_name(named: str, tensors: Iterable[str]) -> list[str]:
    """Return the tensor with this name; otherwise those whose names end in it after a dot."""
    if named in tensors:
        return [named]
    ends = tuple(f".{named}{suffix}" for suffix in ("", *_SUFFIXES))
    return [name for name in tensors if f".{name}".endswith(ends)]


def _likely(tensors: Iterable[str]) -> list[str]:
    """Return the tensors named as token embeddings, without the copies that some models have."""
    found = {name: _last_part(name) for name in tensors}
    likely = [name for name, part in found.items() if part in _LIKELY]
    likely = [name for name in likely if not _IN_LAYER.search(name)] or likely
    if any(found[name] == "shared" for name in likely):  # T5, BART: embed_tokens of encoder and decoder
        likely = [name for name in likely if found[name] != "embed_tokens"]
    return likely


def _last_part(name: str) -> str:
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return name.rpartition(".")[2]


def _error(prefix: str, tensors: Mapping[str, str], names: Iterable[str], suffix: str) -> InputError:
    shown = [f"{cut(name, 80)} {tensors[name]}".rstrip() for name in names]
    room = MAX_MESSAGE - len(prefix) - len(suffix) - 20
    return InputError(f"{prefix}{listing(shown, room) or 'none'}{suffix}")
