"""Runs kernels written in Gluon on the CPU, as Triton's interpreter runs Triton's.

A kernel is ordinary Python under its decorator: its code runs here with other meanings for the
names of Gluon's language (`gluon_values`, `gluon_program`). Programs of a grid run one after the
other. A name that is not known here is a NameError or AttributeError.
"""

from __future__ import annotations

import itertools
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from triton.experimental.gluon import language
from triton.experimental.gluon.language.nvidia.hopper import mbarrier, tma
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor
from triton.runtime.jit import JITFunction

from support import gluon_program as program
from support import gluon_values as values
from support import ptx
from support.gluon_values import GluonError, Layout, Memory, Pointer

OPTIONS = {"num_warps", "maxnreg", "launch_pdl"}  # of a launch, without meaning here


def _layout(*_: object, **__: object) -> Layout:
    return Layout()


def _assembly(
    asm: str,
    constraints: str,
    arguments: list[Any],
    dtype: torch.dtype | tuple[torch.dtype, ...],
    is_pure: bool,
    pack: int,
) -> Any:
    """Assembly that makes numbers of integers, or integers of numbers, runs (`support.ptx`). Other
    assembly converts numbers here, or takes one from another; what its instructions do is for
    tests on a GPU."""
    if asm.startswith("sub."):
        return arguments[0] - arguments[1]
    argument, is_one = arguments[0], not isinstance(dtype, tuple)
    types = (dtype,) if is_one else dtype
    if all(one.itemsize == 1 for one in types):
        made = _made(asm, arguments, types, pack)
        return made[0] if is_one else made
    if "e4m3" in asm or "e5m2" in asm:
        return _widened(asm, argument.data, argument.shape, dtype)
    return argument.to(dtype) if is_one else _made(asm, arguments, types, pack)


def _made(asm: str, arguments: list[Any], types: tuple[torch.dtype, ...], pack: int) -> Any:
    """`pack` numbers of each result from as many of each argument."""
    blocks = torch.broadcast_tensors(*(argument.data for argument in arguments))
    words = [word for block in blocks for word in _words(block, pack)]
    each = pack * types[0].itemsize // 4  # words of a result
    made = ptx.run(asm, words, each * len(types))
    return tuple(
        values.of(_numbers(made[each * i : each * (i + 1)], one).reshape(blocks[0].shape))
        for i, one in enumerate(types)
    )


def _words(numbers: torch.Tensor, pack: int) -> list[torch.Tensor]:
    """The registers that `pack` neighbours are in, as unsigned numbers."""
    packed = numbers.contiguous().view(torch.uint8).unflatten(-1, (-1, pack * numbers.itemsize))
    fours = packed.to(torch.int64).unflatten(-1, (-1, 4))
    return list((fours << torch.arange(0, 32, 8)).sum(-1).unbind(-1))


def _numbers(words: list[torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
    """What registers hold, one behind the other."""
    four = torch.stack([word >> shift & 255 for word in words for shift in (0, 8, 16, 24)], dim=-1)
    return four.to(torch.uint8).view(dtype)


def _widened(
    asm: str, numbers: torch.Tensor, shape: Any, dtype: torch.dtype | tuple[torch.dtype, ...]
) -> Any:
    """Bytes are numbers in the FP8 that the assembly names; of two bytes each becomes a result, of
    four two words in half precision do."""
    if not numbers.dtype.is_floating_point:
        pairs = numbers.contiguous().view(torch.uint8).view(*numbers.shape, -1)
        numbers = pairs.view(torch.float8_e5m2 if "e5m2" in asm else torch.float8_e4m3fn)
    if not isinstance(dtype, tuple):
        return values.of(numbers.to(dtype).view(shape))
    if dtype[0] == torch.int32:
        return tuple(values.of(one) for one in numbers.half().view(torch.int32).unbind(-1))
    parts = numbers.float().unbind(-1)  # the first byte is the lower one
    return tuple(values.of(part.to(one)) for part, one in zip(parts, dtype, strict=True))


LANGUAGE = SimpleNamespace(
    **{
        name: getattr(torch, name)
        for name in ("float32", "float16", "bfloat16", "int8", "int16", "int32", "int64", "uint8")
    },
    float8e4nv=torch.float8_e4m3fn,
    float8e5=torch.float8_e5m2,
    **{
        name: getattr(values, name)
        for name in (
            "arange", "full", "zeros", "expand_dims", "convert_layout", "split", "join", "where",
            "minimum", "maximum", "cdiv", "exp", "exp2", "log2", "fma", "rsqrt",
        )
    },
    **{
        name: getattr(program, name)
        for name in (
            "program_id", "num_programs", "load", "store", "allocate_shared_memory",
            "warp_specialize", "to_tensor",
        )
    },
    sum=values.total,
    max=values.largest,
    static_range=range,
    constexpr=lambda value: value,
    BlockedLayout=_layout,
    SliceLayout=_layout,
    DotOperandLayout=_layout,
    DistributedLinearLayout=_layout,
    inline_asm_elementwise=_assembly,
    NVMMADistributedLayout=_layout,
    SwizzledSharedLayout=_layout,
    NVMMASharedLayout=SimpleNamespace(get_default_for=_layout),
)  # fmt: skip
MODULES = {
    language.__name__: LANGUAGE,
    mbarrier.__name__: SimpleNamespace(
        MBarrierLayout=_layout,
        **{name: getattr(program, name) for name in ("init", "expect", "arrive", "wait")},
    ),
    tma.__name__: SimpleNamespace(async_copy_global_to_shared=program.async_copy_global_to_shared),
}
FUNCTIONS = {
    name: getattr(program, name)
    for name in (
        "mma_v2", "warpgroup_mma", "warpgroup_mma_wait", "fence_async_shared", "gdc_wait",
        "gdc_launch_dependents",
    )
}  # fmt: skip


def rebuilt(function: JITFunction) -> Callable[..., Any]:
    """The function's code, and that of those it calls, with this interpreter's names."""
    return _rebuilt(function.fn, {})


def _rebuilt(function: Any, known: dict[Any, Callable[..., Any]]) -> Callable[..., Any]:
    if function not in known:
        names: dict[str, Any] = {"range": values.counted}
        known[function] = types.FunctionType(
            function.__code__, names, function.__name__, function.__defaults__
        )
        for name in function.__code__.co_names:
            meant = function.__globals__.get(name)
            if isinstance(meant, types.ModuleType) and meant.__name__ in MODULES:
                names[name] = MODULES[meant.__name__]
            elif name in FUNCTIONS:
                names[name] = FUNCTIONS[name]
            elif isinstance(meant, language.constexpr):
                names[name] = meant.value
            elif isinstance(meant, JITFunction):
                names[name] = _rebuilt(meant.fn, known)
    return known[function]


@dataclass(frozen=True, slots=True)
class Late:
    """What the launch before this one writes: a tensor, or of a dense one what is flagged."""

    tensor: Tensor
    flags: Tensor = torch.tensor(True)


class Interpreted:
    """Takes a kernel's place: `kernel[grid](...)` runs here.

    loader_first: see `gluon_program`; late: what must not be read before the wait for the launch
    before. A launch raises GluonError for what a kernel must not do.
    """

    def __init__(self, kernel: JITFunction, loader_first: bool, late: Sequence[Late] = ()) -> None:
        self._function, self._loader_first = rebuilt(kernel), loader_first
        self._late = {one.tensor.data_ptr(): one.flags for one in late}

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def launch(*arguments: Any, **named: Any) -> None:
            memories: dict[int, Memory] = {}
            taken = [self._argument(argument, memories) for argument in arguments]
            constants = {name: value for name, value in named.items() if name not in OPTIONS}
            waited = False
            for reversed_ids in itertools.product(*(range(count) for count in grid[::-1])):
                one = program.Program(reversed_ids[::-1], grid, self._loader_first)
                program.here.enter(one, 0, False)
                self._function(*taken, **constants)
                one.finish()
                waited = waited or one.waited
            if named.get("launch_pdl") and not waited:  # see `dependent`
                raise GluonError("launched dependently, and no program waited")

        return launch

    def _argument(self, argument: Any, memories: dict[int, Memory]) -> Any:
        if isinstance(argument, Tensor):
            return Pointer(self._memory(argument, memories), torch.tensor(0))
        if isinstance(argument, TensorDescriptor):
            memory = self._memory(argument.base, memories)
            shape, strides = list(argument.shape), list(argument.strides)
            return program.Descriptor(memory, shape, strides, list(argument.block_shape))
        return None if argument is None else values.scalar(argument)

    def _memory(self, tensor: Tensor, memories: dict[int, Memory]) -> Memory:
        at = tensor.data_ptr()
        if at not in memories:
            memories[at] = values.memory_of(tensor, self._late.get(at))
        return memories[at]
