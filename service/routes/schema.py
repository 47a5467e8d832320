"""Models of requests, which validate them, and of responses, which describe them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, InstanceOf, TypeAdapter, WithJsonSchema

from service.http.validation import RequestModel


def _documented(type: Any) -> WithJsonSchema:  # noqa: ANN401 - a type
    """Document a type whose elements are validated where they are converted, which costs a fraction."""
    return WithJsonSchema(TypeAdapter(type).json_schema())


Row = Annotated[int, Field(ge=0, lt=1 << 32)]
#: `InstanceOf` accepts lone surrogates, as names that do not exist.
ModelName = Annotated[
    InstanceOf[str] | None, "a string", Field(description="Optional if one model is loaded.")
]


class ErrorDetail(BaseModel):
    """What was wrong, and where."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorResponse(BaseModel):
    """The body of every error response."""

    error: ErrorDetail


class LookupRequest(RequestModel):
    """Tokens or row numbers, flat or as lists of lists, or texts."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": [name]} for name in ("tokens", "ids", "texts")]}
    )
    example = '{"tokens": ["the", "cat"]}'

    tokens: Annotated[
        list[Any] | None, "a list of strings", _documented(list[str] | list[list[str]] | None)
    ] = Field(None, description="Tokens to look up, or lists of them; the response to lists has `offsets`.")
    ids: Annotated[
        list[Any] | None, "a list of row numbers", _documented(list[Row] | list[list[Row]] | None)
    ] = Field(None, description="Row numbers instead of tokens.")
    texts: Annotated[list[Any] | None, "a list of strings", _documented(list[str] | None)] = Field(
        None, description="Texts instead of tokens, for a model with a tokenizer: each gets one vector."
    )
    model: ModelName = None
    pool: Literal["mean", "sum"] | None = Field(None, description="Return one vector for each inner list.")
    oov: Literal["zero", "mean", "error", "skip"] | None = Field(
        None,
        description="Vectors of unknown tokens: zeros (the default), the mean of all rows, an error for the "
        "request, or none, which needs a pool.",
    )
    dtype: Literal["float32", "float16"] | None = Field(None, description="float32 by default.")


class LookupResponse(BaseModel):
    """The vectors, in the order of the request."""

    model: str
    dim: int
    vectors: list[list[float]]
    found: list[bool] = Field(
        description="Which tokens are in the vocabulary; of a pool, whether any is; which texts have tokens."
    )
    offsets: list[int] | None = Field(None, description="Where the inner lists begin; the last is the total.")


class NeighborsRequest(RequestModel):
    """A token, a row number or a vector, and the number of nearest rows to return."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": [name]} for name in ("token", "id", "vector")]}
    )
    example = '{"token": "the", "k": 10}'

    token: Annotated[InstanceOf[str] | None, "a string"] = Field(
        None, description="A token of the vocabulary; its own row is left out."
    )
    id: Annotated[Row | None, "a whole number of at least 0"] = Field(
        None, description="A row number; that row is left out."
    )
    vector: Annotated[list[Any] | None, "a list of numbers", _documented(list[float] | None)] = Field(
        None, description="A vector of the table's dimension."
    )
    k: Annotated[Annotated[int, Field(ge=1, le=1000)] | None, "a whole number from 1 to 1000"] = Field(
        None, description="Number of rows, 10 by default; fewer if the table has fewer."
    )
    model: ModelName = None


class Neighbor(BaseModel):
    """One of the nearest rows."""

    token: str | None = Field(description="null where the table has row numbers only.")
    row: int
    score: float = Field(description="The cosine of the two vectors.")


class NeighborsResponse(BaseModel):
    """The rows of the greatest cosines, the nearest first; of equal ones, the lower row number first."""

    model: str
    neighbors: list[Neighbor]


class EmbeddingsRequest(RequestModel):
    """Texts, in OpenAI's form; other fields are ignored, as clients send those of other servers."""

    model_config = ConfigDict(extra="ignore")
    example = '{"input": "the cat sat"}'

    input: Annotated[Any, _documented(str | list[str] | list[int] | list[list[int]])] = Field(
        description="A text, or a list of up to 2,048 texts; with `tokenizer`, of lists of token ids, too."
    )
    model: ModelName = None
    encoding_format: Literal["float", "base64"] | None = Field(
        None, description="Numbers (the default), or base64 of little-endian float32."
    )
    tokenizer: Literal["model"] | None = Field(
        None, description="Token ids in `input` are those of the model's own tokenizer."
    )
    dimensions: Annotated[int | None, "a whole number"] = Field(
        None, description="If given, it has to be the model's own."
    )


class Embedding(BaseModel):
    """One text's vector."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    """How many tokens the texts had: of a model without tokenizer, words and punctuation marks."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(BaseModel):
    """The vectors, in the order of the texts."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


class ModelInfo(BaseModel):
    """A loaded model."""

    name: str
    rows: int
    dim: int
    nbit: int
    codebook_kind: str = Field(description="How values are coded: uniform, exact, trellis or float.")
    clip: float
    frobenius_error: float = Field(description="Relative error of the table against its source.")
    has_vocabulary: bool = Field(description="Whether tokens can be looked up, or only row numbers.")
    has_tokenizer: bool = Field(description="Whether texts can be encoded by the model's own tokenizer.")
    digest: str = Field(description="Identifies the content; every response from it has this digest.")
    bytes: dict[str, int] = Field(description="The mapped file by part.")
    metadata: dict[str, str]


class ModelList(BaseModel):
    """All loaded models."""

    models: list[ModelInfo]


class OpenAIModel(BaseModel):
    """A loaded model, in OpenAI's form."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="When the file was written, in seconds since 1970.")
    owned_by: Literal["smallfry"] = "smallfry"


class OpenAIModelList(BaseModel):
    """All loaded models, in OpenAI's form."""

    object: Literal["list"] = "list"
    data: list[OpenAIModel]


class Health(BaseModel):
    """Whether the server is up and ready."""

    status: str
