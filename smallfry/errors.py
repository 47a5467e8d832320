"""The errors that smallfry raises, one class for each kind of thing that can be wrong."""

from __future__ import annotations


class SmallfryError(Exception):
    """Base of every error that smallfry raises on purpose."""


class InputError(SmallfryError, ValueError):
    """The vectors, tokens or options given cannot be compressed or looked up."""


class NonFiniteError(InputError):
    """The matrix holds NaN or infinity; the message names the row and the column."""


class BadLineError(InputError):
    """A line (or record) of a vector file is malformed; the message names its number."""


class OutOfVocabularyError(SmallfryError, KeyError):
    """Tokens were looked up with ``oov="error"`` and are not in the vocabulary.

    Attributes
    ----------
    tokens : list of str
        The unknown tokens, in the order asked, each once.
    """

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        shown = ", ".join(repr(t) for t in tokens[:5]) + (", …" if len(tokens) > 5 else "")
        noun = "token is" if len(tokens) == 1 else "tokens are"
        self.message = (
            f"{len(tokens)} {noun} not in the vocabulary: {shown}. "
            'Look up with oov="zero" or oov="mean" to get a vector for unknown tokens.'
        )
        super().__init__(self.message)

    def __str__(self) -> str:
        """Return the plain message (KeyError would quote it)."""
        return self.message


class SfqError(SmallfryError, ValueError):
    """Base of everything that can be wrong with a ``.sfq`` file."""
