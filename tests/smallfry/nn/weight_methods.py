"""Compares each attribute of torch.Tensor on a weight with that on its decoded copy; prints the differences.

`test_weight_view` runs it in a process of its own, which may crash.
"""

import sys
import warnings

import numpy as np
import torch

from smallfry.nn import QuantEmbedding

# Values that are not determined by the tensor's, and attributes of the class.
UNDETERMINED = set(
    """
    __class__ __dict__ __dir__ __dlpack__ __dlpack_c_exchange_api__ __doc__ __getattribute__ __getstate__
    __hash__ __init__ __init_subclass__ __iter__ __module__ __new__ __reduce__ __reduce_ex__ __setattr__
    __sizeof__ __torch_dispatch__ __torch_function__ grad_fn module_load new new_empty new_empty_strided
    register_hook resize resize_as
    """.split()
)
MEMORY = {"data_ptr", "const_data_ptr", "share_memory_", "storage", "storage_type", "untyped_storage"}
IN_PLACE = {"__setitem__", *(name for name in dir(torch.Tensor) if name.startswith("__i"))}
REFUSALS = ("The weight of a packed module", "Cannot access data pointer")

SIZE = 6
OTHER = torch.rand(SIZE, SIZE)
MASK = OTHER > 0.5
IDS = torch.arange(SIZE).repeat(SIZE, 1)
PAIR = torch.tensor([0, 1])
ARGUMENTS = [
    *((), (0,), (1,), (2, 2), (0, 1), (3, 0), (0, 1, 2), (0, 1, 3), (-1,), (0.5,), (0.1, 0.9)),
    *((OTHER,), (OTHER[0],), (OTHER, OTHER), (OTHER[None], OTHER[None]), (OTHER, 0, 1), (2, 0, 1.0)),
    *((MASK,), (MASK, OTHER), (MASK, 0.5), (MASK[0],), (MASK[0], OTHER[0])),
    *(
        (IDS,),
        (PAIR,),
        (0, IDS),
        (0, PAIR),
        (0, PAIR, OTHER[:2]),
        (0, IDS, OTHER),
        (0, IDS, 1.0),
        (IDS, OTHER),
    ),
    *(((PAIR,), OTHER[:2]), (OTHER, IDS, OTHER), (0, 0, OTHER), (0, PAIR, 1.0), (0, IDS, OTHER, "sum")),
    *(((SIZE, SIZE),), ([2, 2],), ((0, 1),), (0, (2, 3)), (2, ((SIZE * SIZE,))), ((SIZE, SIZE), 1.0)),
    *((torch.float64,), (torch.complex64,), ("cpu",), ("meta",), (0.1, 0, torch.quint8), (10, 0.0, 1.0)),
    *((None,), (..., 0), (None, 1), ((1, PAIR),), ((PAIR, PAIR),), (([0, 2], 1),), (slice(1, 5, 2),)),
    *(
        ((slice(None), 2),),
        ((..., 0),),
        ((None, 3),),
        ((PAIR, slice(1, 3)),),
        ((MASK[0], 2),),
        (True,),
        ([0, 2],),
    ),
]


def comparable(value):
    if isinstance(value, torch.Tensor):
        if value.is_meta:
            return "meta", value.shape
        if value.is_quantized:
            value = value.dequantize()
        value = value.detach().to_dense() if value.layout != torch.strided else value.detach()
        kept = value.double() if value.dtype == torch.bfloat16 else value
        return value.dtype, value.shape, kept.numpy(force=True).tobytes()
    if isinstance(value, np.ndarray):
        return value.shape, value.tobytes()
    if isinstance(value, (tuple, list)):
        return [comparable(part) for part in value]
    constants = (bool, int, float, str, torch.dtype, torch.device, torch.layout, type(None))
    return value if isinstance(value, constants) else type(value).__name__


def result(function, *arguments, **options):
    # torch.manual_seed also formats the stack for each accelerator, which takes most of the time here.
    torch.default_generator.manual_seed(0)
    try:
        return comparable(function(*arguments, **options))
    except Exception as error:
        return error


def attribute(tensor, name, arguments):
    value = getattr(tensor, name)
    return value(*arguments) if callable(value) else value


def refused(outcome):
    return isinstance(outcome, Exception) and str(outcome).startswith(REFUSALS)


def method_differences(module, table):
    unchanged = (comparable(table), "NotImplementedType")
    for name in sorted(set(dir(torch.Tensor)) - UNDETERMINED):
        if name.startswith("_") and not name.startswith("__"):
            continue
        for arguments in ARGUMENTS:
            expected = result(attribute, table.clone(), name, arguments)
            if isinstance(expected, Exception):
                continue
            ours = result(attribute, module.weight, name, arguments)
            if name in MEMORY:
                right = refused(ours)
            elif name in IN_PLACE or (name.endswith("_") and not name.endswith("__")):
                right = refused(ours) or (ours == expected and expected in unchanged)
            else:
                right = ours == expected
            if not right:
                kinds = ", ".join(type(argument).__name__ for argument in arguments)
                yield f"Tensor.{name}({kinds}): {ours!r:.200}, expected {expected!r:.100}"
        if not torch.equal(module.weight.clone(), table):
            yield f"Tensor.{name} changed the module"


def out_differences(module, table):
    for name in sorted(dir(torch)):
        function = getattr(torch, name)
        if name.startswith("_") or not callable(function):
            continue
        for arguments in (
            (OTHER,),
            (OTHER, OTHER),
            (OTHER, 0),
            (OTHER, 1.5),
            (OTHER, OTHER, OTHER),
            (SIZE, SIZE),
        ):
            target = torch.full((SIZE, SIZE), -7.0)
            result(function, *arguments, out=target)
            ours = result(function, *arguments, out=module.weight)
            if bool((target != -7).any()) and not isinstance(ours, Exception):
                yield f"torch.{name} with out= is not refused"
        if not torch.equal(module.weight.clone(), table):
            yield f"torch.{name} changed the module"


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    module = QuantEmbedding(SIZE, SIZE, _weight=torch.rand(SIZE, SIZE) * 0.8 + 0.1, nbit=4)
    for differences in (method_differences, out_differences):
        sys.stdout.writelines(f"{line}\n" for line in differences(module, module.weight.clone()))
