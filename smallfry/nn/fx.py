"""Symbolic tracing: the modules of this package are leaves of a `torch.fx` graph, as those of torch are."""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx, nn


def traced_call(module: nn.Module, input: Any, *arguments: Any) -> Tensor:  # noqa: ANN401
    """Record a ``call_module`` node in the graph of ``input``, a proxy of `torch.fx`.

    Raises
    ------
    TypeError
        ``input`` is not a proxy, or ``module`` is the traced module itself.
    """
    if not isinstance(input, fx.Proxy):
        raise TypeError(f"the input is a {type(input).__name__}, expected a tensor")
    tracer: Any = input.tracer
    path = tracer.path_of_module(module)
    if not path:
        raise TypeError(
            f"torch.fx cannot trace a {type(module).__name__}, which is a leaf. "
            "Please trace a model that contains it."
        )
    call: Tensor = tracer.create_proxy("call_module", path, (input, *arguments), {})
    return call
