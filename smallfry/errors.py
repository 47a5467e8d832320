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


class NoVocabularyError(InputError):
    """Tokens were looked up in a table that has row numbers only."""


class StoreClosedError(SmallfryError, ValueError):
    """A store was used after it was closed."""


class SfqError(SmallfryError, ValueError):
    """Base of everything that can be wrong with a ``.sfq`` file.

    Attributes
    ----------
    path : str
        The file, where it is known: the message begins with it. Otherwise empty.
    """

    path = ""


class NotSfqError(SfqError):
    """A ``.sfq`` file is a safetensors file whose metadata says ``format=sfq``."""


class TruncatedError(SfqError):
    """The file holds every byte that its header announces."""


class HeaderSizeError(SfqError):
    """The JSON header is at most ``smallfry.sfq.header.MAX_HEADER`` bytes long."""


class HeaderSyntaxError(SfqError):
    """The header is one UTF-8 JSON object, no name twice, of string metadata and tensor entries."""


class NewerVersionError(SfqError):
    """The file's format version is one that this release of smallfry can read."""


class MetadataError(SfqError):
    """Every metadata value that the format requires is present and well formed."""


class BitWidthError(SfqError):
    """``nbit`` is one of 1, 2, 4, 8, 16, 32."""


class RotationError(SfqError):
    """``rotation`` is a kind that this release of smallfry knows, and a seed."""


class MissingTensorError(SfqError):
    """Every tensor that ``nbit`` and the vocabulary require is present."""


class DtypeError(SfqError):
    """Every tensor has the dtype that the format gives it."""


class ShapeError(SfqError):
    """The shape of every tensor follows from ``rows``, ``dim`` and ``nbit``."""


class CodebookError(SfqError):
    """The codebook fits its kind and ``nbit``, and a 32-bit table has none."""


class OffsetError(SfqError):
    """A tensor's offsets span exactly the bytes of its shape, inside the file."""


class LayoutError(SfqError):
    """Tensors follow each other without holes or overlap, from the first data byte to the last."""


class AlignmentError(SfqError):
    """The data starts at a multiple of 4096, every tensor at a multiple of its item size."""


class ZeroRowsError(SfqError):
    """``zero_rows`` is strictly increasing and below ``rows``."""


class TokenTableError(SfqError):
    """Tokens, their offsets and their index agree: one unique UTF-8 token a row, each found at its row."""


class CodeError(SfqError):
    """Decoded values are finite, and the unused high bits of every row are zero."""


class DigestError(SfqError):
    """The bytes of every tensor hash to the SHA-256 that the metadata gives."""
