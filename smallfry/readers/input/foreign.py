"""Formats that are not read, by the first bytes of a file: what each is, and what to do instead."""

from __future__ import annotations

import re

from smallfry.readers.input.stream import BYTE_ORDER_MARK, InputStream

_HEAD_BYTES = 4096

_PICKLED = "which can run any code when loaded"
_SAVE = "Please save the matrix as .npy or .safetensors."
_EXTRACT = "Please extract the file of vectors from it."

_STRING = rb'"(?:[^"\\\n]|\\.){0,200}"'
_JSON = rb"\s*(?:(?:\[\s*)*\{\s*%s\s*:|(?:\[\s*)+(?:%s\s*[],]|-?\d[\d.eE+-]*\s*,))" % (_STRING, _STRING)

# Text may begin with any token, so a magic number of letters is one only with the bytes that follow it.
_FORMATS: tuple[tuple[bytes, str], ...] = (
    # Archives and compressed data
    (rb"(?s).{257}ustar", "a tar archive. Please extract it first: tar -xf FILE"),
    (rb"7z\xbc\xaf\x27\x1c", f"a 7z archive. {_EXTRACT}"),
    (rb"Rar!\x1a\x07", f"a RAR archive. {_EXTRACT}"),
    (rb"\x04\x22\x4d\x18|\x02\x21\x4c\x18", "lz4 data. Please decompress it: lz4 -d FILE"),
    (rb"\x1f\x9d", ".Z data of compress. Please decompress it: gzip -d FILE"),
    (rb"LZIP[\0\1]", "lzip data. Please decompress it: lzip -d FILE"),
    (rb"\x89LZO\0", "lzop data. Please decompress it: lzop -d FILE"),
    # Pickles; what a gensim or PyTorch object is pickled as comes first.
    (
        rb"(?s)\x80[\2-\5].{0,40}gensim\.|c[\w.\n(]{0,60}gensim\.",
        f"a model saved by gensim, a pickle, {_PICKLED}. Please save its vectors with "
        "model.wv.save_word2vec_format('FILE.bin', binary=True); KeyedVectors have that method themselves.",
    ),
    (
        rb"(?s)\x80\x02(?:\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19|.{0,300}ctorch)",
        f"a PyTorch checkpoint, a pickle, {_PICKLED}. {_SAVE}",
    ),
    (
        rb"(?s)\x80[\1-\5]|[\]})]q\0|\(*c[\w.]+\n\w+\n[()pq]"
        rb"|\(+(?:[dlt]p\d+\n|V[^\n]*\np\d+\n|[IF][-\d.]+L?\n|X..\0\0|[\]})]q\0)",
        f"a pickle, {_PICKLED}. {_SAVE}",
    ),
    # Models and tables
    (
        rb"FiFu[\0-\x20]\0\0\0",
        "a finalfusion file. Please convert it: ffp-convert -f finalfusion -t word2vec FILE OUT",
    ),
    (rb"SQLite format 3\0", f"an SQLite database, probably of pymagnitude. {_SAVE}"),
    (rb"\x89HDF\r\n\x1a\n", f"an HDF5 file. {_SAVE}"),
    (rb"PAR[1E][\x0e-\x1f]", f"a Parquet file. {_SAVE}"),
    (rb"(?s)ARROW1\0\0|FEA1\0|\xff{4}..\0\0", f"an Arrow or Feather file. {_SAVE}"),
    (rb"GGUF(?:[\1-\x09]\0\0\0|\0\0\0[\1-\x09])", f"a GGUF model. {_SAVE}"),
    (rb"(?s)(?:[fl]mgg|tjgg|algg)..\0\0", f"a GGML model. {_SAVE}"),
    (rb"\x08\x01\x12", f"a TensorFlow SavedModel. {_SAVE}"),
    (rb"\x08[\3-\x1f]\x12[\1-\x20][A-Za-z]", f"an ONNX model. {_SAVE}"),
    (rb"(?s)\n[\1-\xff]{1,3}\n.[\w./:-]+\x12.[A-Z]\w", f"a TensorFlow graph. {_SAVE}"),
    (rb"(?s)\0\0.\x08.\x1a", f"the index of a TensorFlow checkpoint. {_SAVE}"),
    (rb"(?s)\n.\n.[^\0-\x20]+\x15.{4}", "a SentencePiece model, which holds tokens without vectors."),
    (rb"MATLAB \d\.\d MAT-file", f"a MATLAB file. {_SAVE}"),
    (
        rb"X\n\0\0\0[\2\3]|B\n[\2\3]\0\0\0|A\n[23]\n\d{5,6}\n|RD[XAB][23]\n",
        "R data. Please save it as text: write.table(x, quote = FALSE).",
    ),
    # Files that are something else than they are named
    (
        rb"version https://git-lfs\.github\.com/",
        "a Git LFS pointer, not the file. Please get it: git lfs pull",
    ),
    (
        rb"(?i)\s*<(?:!doctype\s+html|html(?:\s+[a-z]|\s*>\s*<)|\?xml\s)",
        "an HTML or XML page, probably the answer to a failed download. Please download the file again.",
    ),
    (rb"%PDF-\d", "a PDF document. Please copy its vectors to a text file."),
    (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Office document. Please save it as text (CSV)."),
    (_JSON, "JSON. Please write its vectors as text, a line 'token value value …' for each."),
)


def find_foreign(stream: InputStream) -> str | None:
    """Return what a stream of another format is, and what to do to read its vectors."""
    head = stream.peek(_HEAD_BYTES).removeprefix(BYTE_ORDER_MARK)
    return next((what for magic, what in _FORMATS if re.match(magic, head)), None)
