"""The shapes of requests and answers, as the API's documentation shows them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Row = Annotated[int, Field(ge=0, lt=1 << 32)]


class ErrorDetail(BaseModel):
    """What was refused and why."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorAnswer(BaseModel):
    """The body of every answer that refuses."""

    error: ErrorDetail


class LookupRequest(BaseModel):
    """Tokens or row numbers, flat or as lists of lists."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"oneOf": [{"required": ["tokens"]}, {"required": ["ids"]}]},
    )

    tokens: list[str] | list[list[str]] | None = Field(
        None, description="Tokens to look up, or lists of them; the answer to lists carries `offsets`."
    )
    ids: list[Row] | list[list[Row]] | None = Field(None, description="Row numbers instead of tokens.")
    model: str | None = Field(None, description="May be left out where one vocabulary is loaded.")
    pool: Literal["mean", "sum"] | None = Field(None, description="Answer one vector for each inner list.")
    oov: Literal["zero", "mean", "error", "skip"] | None = Field(
        None,
        description="What unknown tokens get: zeros (the default), the mean of all rows, a refusal of "
        "the request, or, in pools, nothing.",
    )
    dtype: Literal["float32", "float16"] | None = Field(None, description="float32 where left out.")


class LookupAnswer(BaseModel):
    """The vectors, in the order of the request."""

    model: str
    dim: int
    vectors: list[list[float]]
    found: list[bool] = Field(description="Which tokens are in the vocabulary; of a pool, whether any is.")
    offsets: list[int] | None = Field(None, description="Where the inner lists begin; the last is the total.")


class NeighborsRequest(BaseModel):
    """A token, a row number or a vector, and how many of the nearest rows to answer."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"oneOf": [{"required": [name]} for name in ("token", "id", "vector")]},
    )

    token: str | None = Field(None, description="A token of the vocabulary; its own row is no neighbour.")
    id: Row | None = Field(None, description="A row number; that row is no neighbour.")
    vector: list[float] | None = Field(None, description="As a lookup answers it, or any other.")
    k: int = Field(10, ge=1, le=1000, description="How many; fewer where there are not so many rows.")
    model: str | None = Field(None, description="May be left out where one vocabulary is loaded.")


class Neighbor(BaseModel):
    """A row near to the one asked for."""

    token: str | None = Field(description="null where the table has row numbers only.")
    row: int
    score: float = Field(description="The cosine of the two vectors.")


class NeighborsAnswer(BaseModel):
    """The rows of the greatest cosines, the nearest first; of equal ones, the lower row number first."""

    model: str
    neighbors: list[Neighbor]


class EmbeddingsRequest(BaseModel):
    """Texts or token ids, in OpenAI's form."""

    model_config = ConfigDict(extra="forbid")

    input: str | list[str] | list[Row] | list[list[Row]] = Field(
        description="A text, texts, row numbers of one text, or of several."
    )
    model: str | None = Field(None, description="May be left out where one vocabulary is loaded.")
    encoding_format: Literal["float", "base64"] | None = Field(
        None, description="Numbers (the default), or base64 of little-endian float32."
    )
    dimensions: int | None = Field(None, description="If given, it has to be the vocabulary's own.")
    user: Any = Field(None, description="Ignored.")


class Embedding(BaseModel):
    """One text's vector."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    """How many words and punctuation marks the texts had."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsAnswer(BaseModel):
    """The vectors, in the order of the texts."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


class ModelInfo(BaseModel):
    """One loaded vocabulary."""

    name: str
    rows: int
    dim: int
    nbit: int
    codebook: str = Field(description="How the levels were chosen: uniform, given, lloyd, grouped or float.")
    clip: float
    frobenius_error: float = Field(description="Relative error of the table against its source.")
    has_vocabulary: bool = Field(description="Whether tokens can be looked up, or row numbers alone.")
    digest: str = Field(description="Identifies the content; every answer from it carries this.")
    bytes: dict[str, int] = Field(description="The mapped file by part.")
    metadata: dict[str, str]


class ModelList(BaseModel):
    """All loaded vocabularies."""

    models: list[ModelInfo]


class Health(BaseModel):
    """Whether the server lives, and can answer."""

    status: str
