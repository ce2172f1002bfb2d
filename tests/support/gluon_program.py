"""One program of a Gluon kernel: its shared memory, barriers, copies, products and partitions.

What a GPU may do late is done as late as it may be, and what it may do early as early, so that a
kernel that relies on luck fails:

- shared memory is NaN until written, and the target of a copy is NaN from its issue until some
  partition waits for the copy's barrier;
- a product reads shared memory when it is waited for;
- partitions run one at a time. Who could go on is asked at each barrier and copy, in an order that
  a test chooses: with consumers first they read as early as barriers let them, with the loader
  first it overwrites as early. If no partition can go on, that is a deadlock, found at once.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from support.gluon_partitions import Partitions
from support.gluon_values import (
    GluonError,
    Layout,
    Memory,
    Number,
    Operand,
    Pointer,
    Value,
    of,
    scalar,
    whole,
)

MOST_SHARED = 227 << 10  # bytes of a program on Hopper


@dataclass(slots=True)
class Copy:
    """On its way to shared memory."""

    target: Tensor
    numbers: Tensor


class Barrier:
    """An mbarrier as PTX has it: a phase is over after `count` arrivals and all expected bytes."""

    def __init__(self) -> None:
        self.phase = self._count = self._missing = self._bytes = 0
        self.under_way: list[Copy] = []  # of this phase
        self.arrived: list[Copy] = []  # of those before, not yet waited for

    def init(self, count: int) -> None:
        self._count = self._missing = count

    def expect(self, size: int) -> None:
        self._bytes += size
        self.arrive()

    def arrive(self) -> None:
        if not self._count:
            raise GluonError("a barrier that was not initialised")
        self._missing -= 1
        self._advance()

    def copied(self, copy: Copy) -> None:
        self._bytes -= copy.numbers.numel() * copy.numbers.element_size()
        if self._bytes < 0:
            raise GluonError("more bytes were copied than a barrier expects")
        self.under_way.append(copy)
        self._advance()

    def is_over(self, parity: int) -> bool:
        """Whether the last phase of this parity is over; the one before the first counts so."""
        return self.phase % 2 != parity

    def land(self) -> None:
        for copy in self.arrived:
            copy.target.copy_(copy.numbers)
        self.arrived.clear()

    def _advance(self) -> None:
        if self._missing or self._bytes:
            return
        self.phase, self._missing = self.phase + 1, self._count
        self.arrived += self.under_way
        self.under_way = []


@dataclass(frozen=True, slots=True)
class Shared:
    """A view of an allocation, `home`, of shared memory."""

    numbers: Tensor
    home: int
    layout: Layout = Layout()

    @property
    def shape(self) -> list[int]:
        return list(self.numbers.shape)

    @property
    def dtype(self) -> torch.dtype:
        return self.numbers.dtype

    def _view(self, numbers: Tensor) -> Shared:
        return Shared(numbers, self.home)

    def index(self, index: Operand) -> Shared:
        at = whole(index)
        if not 0 <= at < len(self.numbers):
            raise GluonError(f"tile {at} of {len(self.numbers)} in shared memory")
        return self._view(self.numbers[at])

    def slice(self, start: Operand, length: int, dim: int = 0) -> Shared:
        first, most = whole(start), self.shape[dim]
        if not 0 <= first <= most - length:
            raise GluonError(f"{length} rows from {first} on of {most}")
        return self._view(self.numbers.narrow(dim, first, length))

    def reshape(self, shape: Sequence[int]) -> Shared:
        return self._view(self.numbers.view(list(shape)))

    def _reinterpret(self, dtype: torch.dtype, shape: Sequence[int], layout: Layout) -> Shared:
        numbers = self.numbers.view(dtype)
        if numbers.numel() != math.prod(shape):
            raise GluonError(f"{dtype} {list(numbers.shape)} taken for {list(shape)}")
        return self._view(numbers.view(list(shape)))

    def permute(self, order: Sequence[int]) -> Shared:
        return self._view(self.numbers.permute(tuple(order)))

    def load(self, layout: Layout) -> Value:
        return of(self.numbers.clone())

    def store(self, value: Value) -> None:
        if value.dtype != self.dtype or list(value.shape) != self.shape:
            raise GluonError(f"{value.dtype} {value.shape} to {self.dtype} {self.shape}")
        self.numbers.copy_(value.data)
        here.program.unfenced.add(self.home)


@dataclass(frozen=True, slots=True)
class Barriers:
    """What is allocated as [n, 1] for barriers."""

    barriers: list[Barrier]

    def index(self, index: Operand) -> Barrier:
        at = whole(index)
        if not 0 <= at < len(self.barriers):
            raise GluonError(f"barrier {at} of {len(self.barriers)}")
        return self.barriers[at]


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A tensor that is copied in blocks; what a block has outside of it reads as 0."""

    memory: Memory
    shape: list[int]
    strides: list[int]
    block_shape: list[int]
    layout: Layout = Layout()

    @property
    def dtype(self) -> torch.dtype:
        return self.memory.numbers.dtype

    def block(self, corner: Sequence[Operand], waited: bool) -> Tensor:
        inside, places = torch.tensor(True), torch.tensor(0)
        rank = len(self.shape)
        for axis, first in enumerate(whole(number) for number in corner):
            index = torch.arange(first, first + self.block_shape[axis])
            index = index.view([-1 if other == axis else 1 for other in range(rank)])
            inside = inside & (index >= 0) & (index < self.shape[axis])
            places = places + index * self.strides[axis]
        pointer = Pointer(self.memory, places.expand(self.block_shape))
        return pointer.read(of(inside), 0, waited).data


class Product:
    """A product of a group of four warps, which reads shared memory when it is completed."""

    def __init__(self, a: Value | Shared, b: Shared, acc: Value | None, result: Value) -> None:
        self._a, self._b, self._acc, self._result = a, b, acc, result

    def complete(self) -> None:
        left = self._a.numbers if isinstance(self._a, Shared) else self._a.data
        result = left.float() @ self._b.numbers.float()
        self._result.complete(result if self._acc is None else result + self._acc.data)


@dataclass(slots=True)
class Program:
    """What the partitions of a program have in common."""

    ids: tuple[int, ...]
    grid: tuple[int, ...]
    loader_first: bool
    barriers: list[Barrier] = field(default_factory=list)
    unfenced: set[int] = field(default_factory=set)  # allocations
    partitions: Partitions | None = None
    shared_bytes: int = 0
    waited: bool = False  # some thread, for the launch before

    def finish(self) -> None:
        for barrier in self.barriers:
            if barrier.under_way or barrier.arrived:
                raise GluonError("a program ended before all its copies were waited for")


class Here(threading.local):
    """What the thread that runs a partition knows."""

    program: Program
    index: int
    waited: bool  # for the launch before
    products: list[Product]

    def enter(self, program: Program, index: int, waited: bool) -> None:
        self.program, self.index, self.waited, self.products = program, index, waited, []

    def turn(self, ready: Callable[[], bool] = lambda: True) -> None:
        if self.program.partitions is not None:
            self.program.partitions.turn(self.index, ready)
        elif not ready():
            raise GluonError("deadlock: nobody else could end this wait")


here = Here()


def program_id(axis: int) -> Value:
    return scalar(here.program.ids[axis])


def num_programs(axis: int) -> Value:
    return scalar(here.program.grid[axis])


def load(
    pointer: Pointer, mask: Operand = True, other: Operand | None = None, cache_modifier: str = ""
) -> Value:
    return pointer.read(mask, other, here.waited)


def store(pointer: Pointer, value: Operand, mask: Operand = True) -> None:
    pointer.write(value, mask)


def gdc_wait() -> None:
    here.waited = here.program.waited = True


def gdc_launch_dependents() -> None:
    """Launches come one after the other here."""


def allocate_shared_memory(
    dtype: torch.dtype, shape: Sequence[int], layout: object
) -> Shared | Barriers:
    program = here.program
    if dtype == torch.int64:
        barriers = [Barrier() for _ in range(shape[0])]
        program.barriers += barriers
        return Barriers(barriers)
    numbers = torch.full(list(shape), unwritten(dtype), dtype=dtype)
    program.shared_bytes += numbers.numel() * numbers.element_size()
    if program.shared_bytes > MOST_SHARED:
        raise GluonError(f"{program.shared_bytes} bytes of shared memory")
    return Shared(numbers, numbers.data_ptr())


def unwritten(dtype: torch.dtype) -> Number:
    """NaN; of integers the largest: all that FP8's bytes of it hold is NaN, too."""
    return float("nan") if dtype.is_floating_point else torch.iinfo(dtype).max


def fence_async_shared() -> None:
    here.program.unfenced.clear()


def init(barrier: Barrier, count: int) -> None:
    barrier.init(count)


def expect(barrier: Barrier, size: int) -> None:
    barrier.expect(size)
    here.turn()


def arrive(barrier: Barrier, pred: Operand = True) -> None:
    if pred:
        barrier.arrive()
        here.turn()


def wait(barrier: Barrier, phase: Operand, pred: Operand = True) -> None:
    if pred:
        parity = whole(phase)
        here.turn(lambda: barrier.is_over(parity))
        barrier.land()


def async_copy_global_to_shared(
    source: Descriptor, corner: Sequence[Operand], barrier: Barrier, target: Shared
) -> None:
    if target.shape != source.block_shape or target.dtype != source.dtype:
        raise GluonError(f"a copy of {source.block_shape} to {target.shape}")
    _fenced(target)
    numbers = source.block(corner, here.waited)
    target.numbers.fill_(unwritten(target.dtype))
    barrier.copied(Copy(target.numbers, numbers))
    here.turn()


def warpgroup_mma(
    a: Value | Shared, b: Shared, acc: Value, use_acc: Operand = True, is_async: bool = False
) -> Value:
    """a b + acc in float32; a: [64 or more, k], b: [k, n] in shared memory, in half precision or
    e4m3."""
    (m, k), (depth, n) = a.shape, b.shape
    kinds = (torch.float16, torch.bfloat16, torch.float8_e4m3fn)
    if k != depth or acc.shape != (m, n) or m % 64 or n % 8 or k % (32 // a.dtype.itemsize):
        raise GluonError(f"a product of {a.shape} with {b.shape} to {acc.shape}")
    if a.dtype != b.dtype or a.dtype not in kinds or acc.dtype != torch.float32:
        raise GluonError(f"a product of {a.dtype} with {b.dtype} to {acc.dtype}")
    for operand in (a, b):
        if isinstance(operand, Shared):
            _fenced(operand)
    result = Value(None, torch.float32, (m, n))
    here.products.append(Product(a, b, acc if use_acc else None, result))
    if not is_async:
        _complete(0)
    return result


def mma_v2(a: Value, b: Value, acc: Value) -> Value:
    """a b + acc; a: [16 or more, k], b: [k, n], in half precision and acc in float32, or int8 and
    int32."""
    (m, k), (depth, n) = a.shape, b.shape
    least = 32 if a.dtype == torch.int8 else 16
    if k != depth or acc.shape != (m, n) or m % 16 or n % 8 or k % least or a.dtype != b.dtype:
        raise GluonError(f"a product of {a.shape} with {b.shape} to {acc.shape}")
    wide = torch.int32 if a.dtype == torch.int8 else torch.float32
    if acc.dtype != wide:
        raise GluonError(f"a product of {a.dtype} to {acc.dtype}")
    return of(a.data.to(wide) @ b.data.to(wide) + acc.data)


def warpgroup_mma_wait(left: int, deps: Sequence[Value]) -> Value | tuple[Value, ...]:
    _complete(left)
    return deps[0] if len(deps) == 1 else tuple(deps)


def _complete(left: int) -> None:
    while len(here.products) > left:
        here.products.pop(0).complete()


def _fenced(tile: Shared) -> None:
    if tile.home in here.program.unfenced:
        raise GluonError("a copy or product meets what was stored without a fence")


def warp_specialize(
    parts: Sequence[tuple[Callable[..., Any], tuple[Any, ...]]],
    warps: Sequence[int],
    registers: Sequence[int],
) -> None:
    """Runs the partitions; the loader is the last one."""
    if len(warps) != len(parts) - 1 or len(registers) != len(parts) - 1:
        raise GluonError("warps and registers are those of all partitions but the first")
    program, waited = here.program, here.waited

    def runner(index: int) -> Callable[[], None]:
        def run() -> None:
            here.enter(program, index, waited)
            function, arguments = parts[index]
            function(*arguments)
            if here.products:
                raise GluonError("a partition ended before its products")

        return run

    order = range(len(parts))
    program.partitions = Partitions(order[::-1] if program.loader_first else order)
    program.partitions.run([runner(index) for index in order])
    program.partitions = None


def to_tensor(number: Number | Value) -> Value:
    return scalar(number)
