"""Triton's interpreter without what it does in vain: the same numbers in a third of the time.

It checks sums and products of integers for overflow by a second calculation in 64 bits, whose
answer it throws away unless kernels are debugged. It looks through its language for what to replace
at every call of a function, makes a table at every use of it, and describes each tensor anew.
"""

from __future__ import annotations

import functools
import inspect
import math
import os
import sys
from collections.abc import Iterable
from dataclasses import replace
from typing import Any


def quicken() -> None:
    """From here on, where the interpreter has been imported to run kernels."""
    interpreter = sys.modules.get("triton.runtime.interpreter")
    if interpreter is None or os.environ.get("TRITON_INTERPRET") != "1":
        return
    builder = interpreter.interpreter_builder
    if not builder.options.debug:
        builder.options = replace(builder.options, sanitize_overflow=False)
    interpreter._get_np_dtype = _numpy_types(interpreter)
    interpreter._patch_lang = _replaced_once(interpreter)
    interpreter.inspect = _Signatures()
    core = sys.modules["triton.language.core"]
    _describe_once(core)
    _unchecked(core, interpreter.TritonSemantic)


def _numpy_types(interpreter: Any) -> Any:
    """numpy's type of a type of Triton's, by its name."""
    language, original = interpreter.tl, interpreter._get_np_dtype
    by_name: dict[str, Any] = {}

    def numpy_type(dtype: Any) -> Any:
        scalar = dtype.scalar
        if isinstance(scalar, language.pointer_type):
            return original(scalar)
        if scalar.name not in by_name:
            by_name[scalar.name] = original(scalar)
        return by_name[scalar.name]

    return numpy_type


def _replaced_once(interpreter: Any) -> Any:
    """The language's names mean the interpreter's functions from a function's first call on."""
    original, language = interpreter._patch_lang, interpreter.tl
    replaced: set[str] = set()

    class Stays:
        def restore(self) -> None:
            """What runs next in this process is interpreted too."""

    @functools.cache
    def modules_of(function: Any) -> Iterable[str]:
        named = {id(value) for value in function.__globals__.values()}
        return {one.__name__ for one in (language, language.core) if id(one) in named}

    def replace_names(function: Any) -> Stays:
        if not modules_of(function) <= replaced:
            original(function)
            replaced.update(modules_of(function))
        return Stays()

    return replace_names


class _Signatures:
    """`inspect` with what a launch asks of it, asked once a function."""

    getfullargspec = staticmethod(functools.cache(inspect.getfullargspec))

    def __getattr__(self, name: str) -> Any:
        return getattr(inspect, name)


def _describe_once(core: Any) -> None:
    """What a tensor says of its type, and types of blocks, are made once each and shared."""

    def describe(self: Any, handle: Any, type: Any) -> None:
        self.handle, self.type = handle, type
        said = type.__dict__.get("said")
        if said is None:
            sizes = type.shape if type.is_block() else ()
            shape = core.tuple([core.constexpr(size) for size in sizes])
            said = type.said = shape, core.constexpr(math.prod(sizes)), type.scalar
        self.shape, self.numel, self.dtype = said

    known: dict[tuple[Any, ...], Any] = {}
    make = core.block_type.__init__

    def shared(kind: Any, element: Any, shape: Any) -> Any:
        sizes = tuple(getattr(size, "value", size) for size in shape)
        key = element.name, getattr(element, "address_space", None), sizes
        if key not in known:
            known[key] = object.__new__(kind)
            make(known[key], element, [*sizes])
        return known[key]

    equal, answers = core.tuple.__eq__, (core.constexpr(False), core.constexpr(True))

    def equal_sizes(self: Any, other: Any) -> Any:
        values = getattr(other, "values", other)
        if type(values) is list and all(type(value) is int for value in values):
            return answers[self.values == values]
        return equal(self, other)

    core.tensor.__init__ = describe
    core.block_type.__new__ = shared
    core.block_type.__init__ = lambda self, element, shape: None
    core.tuple.__eq__ = equal_sizes


def _unchecked(core: Any, semantic: Any) -> None:
    """Two tensors of one type, in numbers that no operation widens, need neither rule nor cast."""
    check, plain = semantic.binary_op_type_checking_impl, {"int32", "int64", "fp32"}

    def checked(self: Any, lhs: Any, rhs: Any, *rest: Any, **named: Any) -> Any:
        if (
            type(lhs) is type(rhs) is core.tensor
            and lhs.type is rhs.type
            and lhs.dtype.name in plain
        ):
            return lhs, rhs
        return check(self, lhs, rhs, *rest, **named)

    semantic.binary_op_type_checking_impl = checked
