"""The errors that smallfry raises."""

from __future__ import annotations

import reprlib

_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 60


def shorten(token: object) -> str:
    """Return the repr of a token for a message, shortened to 60 characters."""
    return _REPR.repr(token)


class SmallfryError(Exception):
    """Base of the errors that smallfry raises."""


class InputError(SmallfryError, ValueError):
    """Vectors, tokens or options are invalid."""


class NonFiniteError(InputError):
    """The matrix has a NaN or an infinity; the message names its row and column."""


class BadLineError(InputError):
    """A line or record of a vector file is malformed; the message has its number."""


class OutOfVocabularyError(SmallfryError, KeyError):
    """Tokens that were looked up with ``oov="error"`` are not in the vocabulary.

    Attributes
    ----------
    tokens : list of str
        The unknown tokens, each once, in the order of the lookup.
    """

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        shown = ", ".join(shorten(t) for t in tokens[:5]) + (", …" if len(tokens) > 5 else "")
        noun = "token is" if len(tokens) == 1 else "tokens are"
        self.message = (
            f"{len(tokens)} {noun} not in the vocabulary: {shown}. "
            'Look up with oov="zero" or oov="mean" to get a vector for unknown tokens.'
        )
        super().__init__(tokens)

    def __str__(self) -> str:
        """Return the plain message (`KeyError` would quote it)."""
        return self.message


class NoVocabularyError(InputError):
    """Tokens were looked up in a table that has only row numbers."""


class NoTokenizerError(InputError):
    """Texts were encoded with a table that has no tokenizer."""


class StoreClosedError(SmallfryError, ValueError):
    """A store was used after it was closed."""


class SfqError(SmallfryError, ValueError):
    """Base of the errors that name a violated rule of the ``.sfq`` format.

    Attributes
    ----------
    path : str
        The file, with which the message begins; empty if it is unknown.
    """

    path = ""


class NotSfqError(SfqError):
    """The file is not a safetensors file whose metadata has ``format=sfq``."""


class TruncatedError(SfqError):
    """The file is shorter than its header declares."""


class HeaderSizeError(SfqError):
    """The JSON header is longer than ``smallfry.sfq.header.MAX_HEADER``."""


class HeaderSyntaxError(SfqError):
    """The header is not a JSON object of string metadata and tensor entries with unique names."""


class VersionError(SfqError):
    """The file has another format version than this release of smallfry reads."""


class MetadataError(SfqError):
    """A metadata value is missing or malformed."""


class BitWidthError(SfqError):
    """``nbit`` is not 1, 2, 3, 4, 8, 16 or 32."""


class RotationError(SfqError):
    """``rotation`` is not an orthogonal matrix."""


class MissingTensorError(SfqError):
    """A tensor that ``nbit`` or the vocabulary requires is missing."""


class DtypeError(SfqError):
    """A tensor has a dtype that the format does not allow for it."""


class ShapeError(SfqError):
    """The shape of a tensor contradicts ``rows``, ``dim`` or ``nbit``."""


class CodebookError(SfqError):
    """The codebook or a part that only trellis codes have contradicts its kind, ``nbit`` or ``dim``."""


class OffsetError(SfqError):
    """The offsets of a tensor do not span the bytes of its shape."""


class LayoutError(SfqError):
    """Tensors overlap, or bytes of the file belong to none of them."""


class AlignmentError(SfqError):
    """The data does not start at a multiple of 4096, or a tensor at a multiple of its item size."""


class ZeroRowsError(SfqError):
    """``zero_rows`` is not strictly increasing, or names a row beyond the table."""


class HeadOffsetsError(SfqError):
    """``head_offsets`` does not increase from 0 to the number of rows."""


class TokenTableError(SfqError):
    """Tokens, their offsets and their index contradict each other, or a token is not unique UTF-8."""


class TokenizerError(SfqError):
    """The tokenizer of a text model is not what the format describes, or its parts contradict each other."""


class CodeError(SfqError):
    """A decoded value is not finite, or an unused bit of a row is set."""


class DigestError(SfqError):
    """The SHA-256 of a tensor or a file is not the expected one."""
