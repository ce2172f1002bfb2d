"""Numbers, blocks and pointers of Gluon's language, as torch tensors on the CPU.

Types follow the language: a Python number takes the type of the block it meets, int32 and int64
give int64, products of halves are rounded to halves, integer division truncates. Blocks of several
dimensions meet only blocks of as many. What these kernels do not use raises.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from penstock_kernels.fp8 import saturated

Number = bool | int | float


class GluonError(AssertionError):
    """A kernel did what it must not do on a GPU."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Of a block or of shared memory: without meaning here."""


@dataclass(frozen=True, slots=True)
class BlockType:
    layout: Layout = Layout()


def _applied(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Value, Operand], Value]:
    """An operator of values."""

    def apply(self: Value, other: Operand) -> Value:
        return of(function(*_typed(self, other)))

    return apply


def _divided(a: Tensor, b: Tensor) -> Tensor:
    if a.dtype != torch.float32:
        raise NotImplementedError(f"division of {a.dtype}")
    return a / b


def _floor_division(a: Tensor, b: Tensor) -> Tensor:
    if a.dtype.is_floating_point:
        raise NotImplementedError(f"whole division of {a.dtype}")
    return torch.div(a, b, rounding_mode="trunc")


class Value:
    """A block, or a scalar (rank 0). `data` raises while the product that makes it is under way."""

    type = BlockType()

    def __init__(self, data: Tensor | None, dtype: torch.dtype, shape: Sequence[int]) -> None:
        self._data, self.dtype, self.shape = data, dtype, tuple(shape)

    @property
    def data(self) -> Tensor:
        if self._data is None:
            raise GluonError("the result of a product was used before it was waited for")
        return self._data

    def complete(self, data: Tensor) -> None:
        """The product that makes this value is done."""
        self._data = data

    def to(self, dtype: torch.dtype, bitcast: bool = False) -> Value:
        if bitcast:
            return of(self.data.view(dtype))
        if dtype.itemsize == 1 and dtype.is_floating_point:  # as a GPU does it: saturated
            return of(saturated(self.data, dtype))
        return of(self.data.to(dtype))

    def reshape(self, shape: Sequence[int]) -> Value:
        return of(self.data.reshape(list(shape)))

    def permute(self, order: Sequence[int]) -> Value:
        return of(self.data.permute(tuple(order)))

    def split(self) -> tuple[Value, Value]:
        """Along the last dimension, of two."""
        low, high = self.data.unbind(-1)
        return of(low), of(high)

    def __bool__(self) -> bool:
        return bool(self._scalar())

    def __index__(self) -> int:
        if self.dtype.is_floating_point:
            raise TypeError("a float is no index")
        return int(self._scalar())

    def _scalar(self) -> Number:
        if self.shape:
            raise TypeError(f"a block of {self.shape} is no scalar")
        number: Number = self.data.item()
        return number

    def __neg__(self) -> Value:
        return of(-self.data)

    def __invert__(self) -> Value:
        return of(~self.data)

    __add__ = _applied(operator.add)
    __radd__ = __add__
    __mul__ = _applied(operator.mul)
    __rmul__ = __mul__
    __and__ = _applied(operator.and_)
    __rand__ = __and__
    __or__ = _applied(operator.or_)
    __ror__ = __or__
    __sub__ = _applied(operator.sub)
    __rsub__ = _applied(lambda a, b: b - a)
    __truediv__ = _applied(_divided)
    __rtruediv__ = _applied(lambda a, b: _divided(b, a))
    __floordiv__ = _applied(_floor_division)
    __rfloordiv__ = _applied(lambda a, b: _floor_division(b, a))
    __mod__ = _applied(torch.fmod)
    __rmod__ = _applied(lambda a, b: torch.fmod(b, a))
    __lt__ = _applied(operator.lt)
    __le__ = _applied(operator.le)
    __gt__ = _applied(operator.gt)
    __ge__ = _applied(operator.ge)
    __eq__ = _applied(operator.eq)  # type: ignore[assignment]
    __ne__ = _applied(operator.ne)  # type: ignore[assignment]


Operand = Value | Number


def of(data: Tensor) -> Value:
    return Value(data, data.dtype, data.shape)


def scalar(number: Operand) -> Value:
    """As Triton types a number that is an argument or meets no block: int32 where it fits."""
    if isinstance(number, Value):
        return number
    if isinstance(number, bool):
        return of(torch.tensor(number))
    if isinstance(number, float):
        return of(torch.tensor(number, dtype=torch.float32))
    wide = not -(1 << 31) <= number < 1 << 31
    return of(torch.tensor(number, dtype=torch.int64 if wide else torch.int32))


def whole(number: Operand) -> int:
    """A scalar integer as Python's."""
    if isinstance(number, float):
        raise TypeError("a float is no index")
    return operator.index(number)


def _kind(dtype: torch.dtype) -> int:
    return 2 if dtype.is_floating_point else int(dtype != torch.bool)


def _typed(a: Operand, b: Operand) -> tuple[Tensor, Tensor]:
    """Both in the type of their result."""
    left, right = scalar(a), scalar(b)
    if left.shape and right.shape and len(left.shape) != len(right.shape):
        raise GluonError(f"blocks of {left.shape} and of {right.shape} do not meet")
    dtype = torch.promote_types(left.dtype, right.dtype)
    if not isinstance(a, Value) and isinstance(b, Value) and _kind(left.dtype) <= _kind(b.dtype):
        dtype = b.dtype
    if not isinstance(b, Value) and isinstance(a, Value) and _kind(right.dtype) <= _kind(a.dtype):
        dtype = a.dtype
    return left.data.to(dtype), right.data.to(dtype)


@dataclass(frozen=True, slots=True)
class ElementType:
    """What `pointer.dtype` is."""

    element_ty: torch.dtype


@dataclass(slots=True)
class Memory:
    """A tensor as a kernel sees it: from its first number to its last, strides apart.

    late: which of its numbers the launch before this one writes; who reads one before the wait for
    that launch raises. written: how often by this launch, once at most.
    """

    numbers: Tensor
    late: Tensor | None
    written: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.written = torch.zeros(self.numbers.shape, dtype=torch.int32)


def memory_of(tensor: Tensor, late: Tensor | None) -> Memory:
    """late: one flag for all numbers, or those of a dense tensor."""
    span = 1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    numbers = tensor.as_strided((span if tensor.numel() else 0,), (1,))
    if late is not None:
        late = late.flatten().expand(numbers.shape)
    return Memory(numbers, late)


@dataclass(frozen=True, slots=True)
class Pointer:
    """Places in a tensor, in numbers from its first."""

    memory: Memory
    offset: Tensor

    @property
    def dtype(self) -> ElementType:
        return ElementType(self.memory.numbers.dtype)

    def __add__(self, other: Operand) -> Pointer:
        left, right = _typed(of(self.offset), other)
        return Pointer(self.memory, left + right)

    def places(self, mask: Operand) -> tuple[Tensor, Tensor]:
        """Flags of the numbers that count, as many as places, and the places of those."""
        chosen = scalar(mask).data.expand(self.offset.shape)
        places, count = self.offset[chosen], len(self.memory.numbers)
        if places.numel() and (int(places.min()) < 0 or int(places.max()) >= count):
            wrong = places[(places < 0) | (places >= count)]
            raise GluonError(f"outside of a tensor of {count} numbers: {wrong[:8].tolist()}")
        return chosen, places

    def read(self, mask: Operand, other: Operand | None, waited: bool) -> Value:
        chosen, places = self.places(mask)
        late = self.memory.late
        if late is not None and not waited and bool(late[places].any()):
            raise GluonError("read before the wait for the launch that writes it")
        dtype = self.memory.numbers.dtype
        if other is None:  # anything may stand there
            other = float("nan") if dtype.is_floating_point else torch.iinfo(dtype).min
        filled = scalar(other).data if isinstance(other, Value) else torch.tensor(other)
        found = filled.to(dtype).expand(self.offset.shape).clone()
        found[chosen] = self.memory.numbers[places]
        return of(found)

    def write(self, value: Operand, mask: Operand) -> None:
        chosen, places = self.places(mask)
        self.memory.written.index_add_(0, places, torch.ones_like(places, dtype=torch.int32))
        if bool((self.memory.written[places] > 1).any()):
            raise GluonError("a number was written twice")
        numbers = scalar(value).data.to(self.memory.numbers.dtype).expand(self.offset.shape)
        self.memory.numbers[places] = numbers[chosen]


def arange(start: int, end: int, layout: Layout) -> Value:
    if end - start & (end - start - 1):
        raise GluonError(f"the length of a range is a power of two, not {end - start}")
    return of(torch.arange(start, end, dtype=torch.int32))


def full(shape: Sequence[int], value: Number, dtype: torch.dtype, layout: Layout) -> Value:
    return of(torch.full(list(shape), value, dtype=dtype))


def zeros(shape: Sequence[int], dtype: torch.dtype, layout: Layout) -> Value:
    return full(shape, 0, dtype, layout)


def expand_dims(x: Value, axis: int) -> Value:
    return of(x.data.unsqueeze(axis))


def convert_layout(x: Value, layout: Layout, assert_trivial: bool = False) -> Value:
    return of(x.data)


def split(x: Value) -> tuple[Value, Value]:
    return x.split()


def join(a: Value, b: Value) -> Value:
    return of(torch.stack((a.data, b.data), dim=-1))


def where(condition: Operand, a: Operand, b: Operand) -> Value:
    left, right = _typed(a, b)
    flags = scalar(condition)
    if flags.shape and left.dim() and left.dim() != len(flags.shape):
        raise GluonError(f"blocks of {flags.shape} and of {tuple(left.shape)} do not meet")
    return of(torch.where(flags.data, left, right))


def minimum(a: Operand, b: Operand) -> Value:
    return of(torch.minimum(*_typed(a, b)))


def maximum(a: Operand, b: Operand) -> Value:
    """NaN where one is NaN, which on a GPU is the other: what was never computed shows."""
    return of(torch.maximum(*_typed(a, b)))


def cdiv(a: Operand, b: Operand) -> Value:
    return (scalar(a) + b - 1) // b


def total(x: Value, axis: int) -> Value:
    return of(_float32(x).sum(axis))


def largest(x: Value, axis: int) -> Value:
    return of((x.data if x.dtype == torch.int32 else _float32(x)).amax(axis))


def exp(x: Value) -> Value:
    return of(_float32(x).exp())


def exp2(x: Value) -> Value:
    return of(_float32(x).exp2())


def log2(x: Value) -> Value:
    return of(_float32(x).log2())


def rsqrt(x: Value) -> Value:
    return of(_float32(x).rsqrt())


def fma(a: Value, b: Value, c: Value) -> Value:
    return of((_float32(a).double() * _float32(b).double() + _float32(c).double()).float())


def _float32(x: Value) -> Tensor:
    if x.dtype != torch.float32:
        raise NotImplementedError(f"functions of {x.dtype}")
    return x.data


def counted(*bounds: Operand) -> Iterator[Value]:
    """`range` in a kernel, whose index is int32."""
    for number in range(*(whole(bound) for bound in bounds)):
        yield scalar(number)
