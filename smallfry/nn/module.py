"""Base class of the packed modules: buffers, conversion, checkpoints, copies."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from multiprocessing.context import get_spawning_popen
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from smallfry.compress import save
from smallfry.errors import InputError, SfqError
from smallfry.nn import checkpoint
from smallfry.nn.buffers import IntegerBuffer, plain
from smallfry.nn.mmap import MappedFile
from smallfry.nn.packed import PARTS, Packed, check_dtype, checked_bits
from smallfry.nn.quantize import module_options, quantize_file, quantize_tensor
from smallfry.nn.scaled import refuse_customization
from smallfry.nn.weight_view import ReadOnlyWeight
from smallfry.sfq.metadata import MAX_ROWS

if TYPE_CHECKING:
    from typing_extensions import Self


class PackedModule(ReadOnlyWeight):
    """A table of packed rows as buffers; base class of the embedding and the bag.

    Attributes
    ----------
    num_embeddings, embedding_dim, nbit : int
    codes, codebook, mean, column_scale, row_scale, zero_rows : Tensor or None
        As in `smallfry.nn.packed.Packed`; buffers, so neither optimizers nor ``parameters()`` see them.
    frobenius_error : float or None
        ``||X - Xq|| / ||X||`` of the compression; None after loading a state dict.
    rotation : ndarray of float32, shape [embedding_dim, embedding_dim], or None
        That of a rotated file: output times its transpose is in the original basis. Not in the state dict.
    """

    FLOAT: ClassVar[type[nn.Embedding] | type[nn.EmbeddingBag]]
    """The torch module that this class replaces."""

    OPTIONS: ClassVar[tuple[str, ...]]
    """Names of the constructor's options, which are also attributes."""

    # Attributes of the torch module without effect on a packed table; another max_norm is rejected.
    max_norm: None = None
    norm_type: float = 2.0
    scale_grad_by_freq: bool = False
    sparse: bool = False

    codes: Tensor
    codebook: Tensor | None
    mean: Tensor | None
    column_scale: Tensor | None
    row_scale: Tensor | None
    zero_rows: Tensor | None
    frobenius_error: float | None
    rotation: NDArray[np.float32] | None

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        nbit: int,
        _weight: Tensor | None,
        embedding_file: str | os.PathLike[str] | None,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
        **quantize_options: Any,  # noqa: ANN401
    ) -> None:
        super().__init__()
        options = module_options(quantize_options)
        check_dtype(dtype)
        nbit = checked_bits(nbit)
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.nbit = nbit
        self.frobenius_error = None
        self.rotation = None
        self._mapped: MappedFile | None = None
        self._loading: checkpoint.Loading | None = None
        weight = _weight
        if weight is not None:
            if embedding_file is not None:
                raise InputError("both _weight and embedding_file are set; please give one of them")
            if not isinstance(weight, Tensor):
                raise InputError(
                    f"the weight is a {type(weight).__name__}, expected a tensor. "
                    "Please convert it: torch.as_tensor(weight)."
                )
            if weight.shape != (num_embeddings, embedding_dim):
                raise InputError(
                    f"the weight has shape {list(weight.shape)}, expected num_embeddings and embedding_dim, "
                    f"[{num_embeddings}, {embedding_dim}]"
                )
            device = weight.device if device is None else device
            if dtype is None and weight.is_floating_point():
                dtype = weight.dtype
        if embedding_file is not None:
            table = quantize_file(embedding_file, num_embeddings, embedding_dim, nbit, options)
        elif weight is not None and not weight.is_meta:
            table = quantize_tensor(weight, nbit, options)
        else:
            self._set(Packed.empty(num_embeddings, embedding_dim, nbit, device, dtype))
            return
        self.frobenius_error = table.frobenius_error
        self._set(Packed.from_table(table, dtype or torch.get_default_dtype()).to(device))

    @classmethod
    def from_float(cls, module: nn.Module, nbit: int, **quantize_options: Any) -> Self:  # noqa: ANN401
        """Return a packed copy of ``module`` with its device, dtype, training flag and options.

        ``quantize_options`` are those of the constructor.

        Raises
        ------
        InputError
            ``module`` has the wrong type, its own ``forward``, forward hooks, or ``max_norm``.
        """
        if not isinstance(module, cls.FLOAT):
            raise InputError(f"{cls.__name__} replaces {cls.FLOAT.__name__}, not {type(module).__name__}")
        ignored = ("max_norm", "norm_type", "scale_grad_by_freq", "sparse")
        packed = cls(
            num_embeddings=module.num_embeddings,
            embedding_dim=module.embedding_dim,
            _weight=module.weight,
            nbit=nbit,
            **{name: getattr(module, name) for name in ignored},
            **cls.float_options(module),
            **quantize_options,
        )
        return packed.train(module.training)

    @classmethod
    def float_options(cls, module: nn.Module) -> dict[str, Any]:
        """Return the options of a packed module that does what ``module`` does.

        Raises
        ------
        InputError
            No options do: ``module`` has its own ``forward``, or forward hooks.
        """
        refuse_customization(module, cls.FLOAT)
        return {name: getattr(module, name) for name in cls.OPTIONS}

    @classmethod
    def from_packed(cls, packed: Packed, **options: Any) -> Self:  # noqa: ANN401 - those of the constructor
        """Return a module that shares the tensors of ``packed``."""
        module = cls(packed.rows, packed.dim, nbit=packed.nbit, device="meta", **options)
        module._set(packed)
        return module

    @classmethod
    def from_sfq(
        cls,
        path: str | os.PathLike[str],
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
        **options: Any,  # noqa: ANN401
    ) -> Self:
        """Return a module over a ``.sfq`` file.

        On CPU the codes are memory-mapped, and all processes that map the file share one copy. The mapping is
        copy-on-write: writes to the codes do not reach the file. The rows of a paged file are copied to
        memory; `StoreEmbedding` leaves them in the file.

        Parameters
        ----------
        path : path
        device : torch.device, optional
            Device to copy the table to; by default it is mapped on CPU.
        dtype : torch.dtype
            Dtype of the output.
        **options
            Options of the constructor, such as ``padding_idx``.

        Raises
        ------
        SfqError
            The file is damaged or not a ``.sfq`` file.
        InputError
            The file has head offsets, or more rows than a packed module.
        """
        check_dtype(dtype)
        file, table = MappedFile.open(path)
        if table.head_offsets is not None or table.rows > MAX_ROWS:
            reason = "has head offsets" if table.rows <= MAX_ROWS else f"has {table.rows} rows"
            raise InputError(f"{path} {reason}. Please use StoreEmbedding, which gathers from such files.")
        packed = Packed.from_table(table, dtype)
        is_mapped = table.paged_rows is None
        if is_mapped and file.codes is not None and packed.codes.dtype == file.codes.dtype:
            packed = packed._replace(codes=file.codes)
        module = cls.from_packed(packed.to(device), **options)
        module.frobenius_error, module.rotation = table.frobenius_error, table.rotation
        module._mapped = file if is_mapped else None
        return module

    def to_sfq(self, path: str | os.PathLike[str], tokens: Iterable[str] | None = None) -> None:
        """Write the table to a ``.sfq`` file, optionally with one token for each row.

        The file holds the values of this module in float32. An unknown ``frobenius_error`` is written as 0.
        """
        table = replace(
            self.packed.to_table(), frobenius_error=self.frobenius_error or 0.0, rotation=self.rotation
        )
        save(path, table, tokens)

    @property
    def options(self) -> dict[str, Any]:
        """The constructor's options by name."""
        return {name: getattr(self, name) for name in self.OPTIONS}

    @property
    def packed(self) -> Packed:
        """The tensors of the table, shared with the module."""
        # Attributes of a module are an order of magnitude slower than its dictionary.
        buffers: dict[str, Any] = self._buffers
        return Packed(
            plain(buffers["codes"]),
            buffers["codebook"],
            buffers["mean"],
            buffers["column_scale"],
            buffers["row_scale"],
            plain(buffers["zero_rows"]),
            self.embedding_dim,
            self.nbit,
        )

    @property
    def nbytes(self) -> int:
        """Total size of the buffers in bytes."""
        return sum(buffer.nbytes for buffer in self.buffers())

    @property
    def mapped(self) -> bool:
        """Whether the codes are memory-mapped and unchanged."""
        codes = self.packed.codes
        return self._mapped is not None and self._mapped.codes is codes and not codes._version

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Warn if gradients are requested: there are no parameters."""
        if requires_grad:
            warnings.warn(
                "A packed table has no trainable values, so requires_grad_ has no effect. To train the "
                "embedding, exclude it with quantize_embed's filter, and quantize it after training.",
                stacklevel=2,
            )
        return super().requires_grad_(requires_grad)

    def extra_repr(self) -> str:
        """Describe sizes, bits, options and bytes."""
        options = "".join(
            f", {name}={value!r}"
            for name, value in self.options.items()
            if value is not None and value is not False
        )
        return f"{self.num_embeddings}, {self.embedding_dim}, nbit={self.nbit}{options}, bytes={self.nbytes}"

    def _set(self, packed: Packed) -> None:
        self._buffers.clear()
        # None last: torch.export assumes that a buffer's position is its position among the tensors.
        for name in sorted(PARTS, key=lambda name: getattr(packed, name) is None):
            self.register_buffer(name, getattr(packed, name))
        self._guard()

    def _guard(self) -> None:
        """Protect the integer buffers from being averaged."""
        for name, buffer in self._buffers.items():
            if buffer is not None and not buffer.is_floating_point():
                self._buffers[name] = IntegerBuffer(buffer)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move every buffer; a change of dtype applies only to the buffer that sets the output dtype."""
        values = self.codes if self.codebook is None else self.codebook

        def move(buffer: Tensor) -> Tensor:
            moved = fn(buffer)
            if buffer is values and not moved.is_floating_point():
                raise TypeError(f"the dtype is {moved.dtype}, but the output of a packed module is floating")
            if buffer is values or moved.dtype == buffer.dtype:
                return moved
            return buffer.to(moved.device)

        super()._apply(move, recurse)  # type: ignore[no-untyped-call]
        self._guard()
        return self

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Load any of the forms of `smallfry.nn.checkpoint`."""
        for hook in self._load_state_dict_pre_hooks.values():
            hook(state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        entries = checkpoint.select(state_dict, prefix)
        if strict:
            unexpected_keys.extend(prefix + name for name in entries.keys() - checkpoint.names(entries))
        assign = local_metadata.get("assign_to_params_buffers", False)
        self._load(entries, prefix, assign, missing_keys, error_msgs)

    def _load(
        self,
        entries: dict[str, Any],
        prefix: str,
        assign: bool,
        missing_keys: list[str],
        error_msgs: list[str],
        by_head: bool = False,
    ) -> None:
        """Load the entries of this module or of a head tied to it, whose prefix is ``prefix``."""
        loading = self._loading = checkpoint.Loading.of(missing_keys, self._loading)
        if loading.has(entries):
            return
        try:
            packed = checkpoint.read(entries, self.num_embeddings, self.embedding_dim, self.nbit)
        except InputError as error:
            error_msgs.append(f"{prefix.rstrip('.') or type(self).__name__}: {error}")
            return
        if packed is None:
            loading.miss([prefix + name for name, _ in self.named_buffers() if name not in entries])
            return
        loading.add(entries, by_head)
        if assign:
            self._set(packed)
            self.frobenius_error = None
        elif self.codes.is_meta:
            warnings.warn(
                f"{prefix}codes is on the meta device, so loading has no effect. Pass assign=True to "
                "load_state_dict, or call to_empty first.",
                stacklevel=2,
            )
        else:
            self._copy(packed)
            self.frobenius_error = None

    def _copy(self, packed: Packed) -> None:
        """Copy into buffers of the same shape, which other modules may share; replace the others."""
        own = self.packed
        loaded = packed.astype(own.dtype).to(own.codes.device)
        for name in PARTS:
            old, new = getattr(own, name), getattr(loaded, name)
            if old is not None and new is not None and old.shape == new.shape:
                loaded = loaded._replace(**{name: old.copy_(new)})
            elif new is not None:
                loaded = loaded._replace(**{name: new.clone()})
        self._set(loaded)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Copy everything; map the file of mapped codes again, or copy them if it is gone or was replaced."""
        mapped = None
        codes = self.packed.codes
        if self.mapped and id(codes) not in memo:
            assert self._mapped is not None
            with suppress(OSError, SfqError):
                mapped = self._mapped.reopen()
                memo[id(codes)] = mapped.codes
        copied = self.__class__.__new__(self.__class__)
        memo[id(self)] = copied
        copied.__dict__.update(copy.deepcopy({**self.__dict__, "_mapped": None}, memo))
        copied._mapped = mapped
        return copied

    def __getstate__(self) -> dict[str, Any]:
        """Return the state to pickle: with the codes, or for a spawned process with the path of the file."""
        state = {**self.__dict__, "_loading": None}
        if self.mapped and get_spawning_popen() is not None:
            assert self._mapped is not None
            state["_buffers"] = {**self._buffers, "codes": None}
            state["_mapped"] = replace(self._mapped, codes=None)
        else:
            state["_mapped"] = None
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the module; map the file if the state has its path."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        if self._mapped is not None:
            self._mapped = self._mapped.reopen()
            assert self._mapped.codes is not None
            self.codes = self._mapped.codes
        self._guard()
