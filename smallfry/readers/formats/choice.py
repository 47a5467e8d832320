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
"""Last parts of the names of token embeddings, before `_SUFFIX`."""

_SUFFIX = re.compile(r"(\.weight|\.weight\._data|\._weight_qdata)$")  # of torch, optimum-quanto and torchao
_IN_LAYER = re.compile(r"\.\d+\.")


def choose_tensor(
    file: str,
    tensors: Mapping[str, str],
    *,
    named: str | None,
    tables: Sequence[str],
    readable: Sequence[str],
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
    tables : sequence of str
        Tensors that may be chosen for their name, or if there is only one.
    readable : sequence of str
        Those of them whose values can be read; chosen if there is only one.
    hint : str
        Sentence for messages: where else the tensor may be. The only tensor is then not chosen for being it.

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
            problem = f"has {len(found):,} tensors whose names end in {cut(named, 80)!r}:"
            action = "Please give more of the name with tensor= (--tensor)."
        else:
            similar = [name for name in tensors if named.lower() in name.lower()]
            found = [*similar, *_likely(tensors), *tensors]
            problem = f"has no tensor {cut(named, 80)!r}. It has"
            action = hint or "Please name one of them."
    else:
        likely = _likely(tables)
        for candidates in (likely, readable, tables):
            if len(candidates) == 1 and (candidates is likely or not hint):
                return candidates[0]
        found = [*likely, *readable] or list(tensors)
        count = f"{len(readable):,} tensors to choose from, of which {len(likely)} are"
        problem = f"has {count} named as token embeddings:"
        choose = "Please name the one to read with tensor= (--tensor)."
        action = hint or (choose if readable else "Please save it as float32.")
    file = cut(file, 100)
    shown = [f"{cut(name, 80)} {tensors[name]}".rstrip() for name in dict.fromkeys(found)]
    room = MAX_MESSAGE - len(f"{file} {problem} . {action}") - 20
    raise InputError(f"{file} {problem} {listing(shown, room) or 'none'}. {action}")


def _with_name(named: str, tensors: Iterable[str]) -> list[str]:
    """Return the tensor with this name; otherwise those whose names end in it after a dot."""
    if named in tensors:
        return [named]
    end = re.compile(rf"(^|\.){re.escape(named)}({_SUFFIX.pattern})?$")
    return [name for name in tensors if end.search(name)]


def _likely(tensors: Iterable[str]) -> list[str]:
    """Return the tensors named as token embeddings, without the copies that some models have."""
    parts = {name: _SUFFIX.sub("", name).rpartition(".")[2] for name in tensors}
    likely = [name for name, part in parts.items() if part in _LIKELY]
    likely = [name for name in likely if not _IN_LAYER.search(name)] or likely
    if "shared" in map(parts.get, likely):  # T5, BART: embed_tokens of encoder and decoder
        likely = [name for name in likely if parts[name] != "embed_tokens"]
    return likely
