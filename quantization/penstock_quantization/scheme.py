"""How the matrices of a checkpoint are stored, as its configuration says, without torch: the
launcher checks it early."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from penstock_quantization.whole import Whole

Config = Mapping[str, Any]
UNREAD = (".input_scale", ".input_scale_ub", ".input_global_scale", ".k_scale", ".v_scale")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """How the matrices of a checkpoint are stored."""

    method: str  # `quant_method`
    format: str  # what `--quantize` calls it
    stored: str = "fp8"  # which reader takes it
    code: str = ""  # the table of its codes, of `kernels.lut.TABLES`
    bits: int = 4  # of a code
    nested: bool = False  # whether scales are codes themselves
    scale: str = "weight_scale"  # of a matrix, beside its `weight`
    block: tuple[int, int] | None = None  # rows and columns of a scale; None: a row's or a tensor's
    whole: Whole | None = None  # of whole numbers
    powers: bool = False  # whether scales are powers of two (e8m0)
    skipped: tuple[str, ...] = ()  # matrices that are not quantised
    # Tensors beside a matrix that are not read: rows get scales of their own.
    unread: tuple[str, ...] = UNREAD

    def skips(self, name: str) -> bool:
        """Whether a matrix, such as model.layers.0.mlp.down_proj, is left as it was.

        Lists name matrices, modules that hold them, last parts of names, patterns (*.mlp.*), or
        expressions (re:…).
        """
        return any(matches(entry, name) for entry in self.skipped)


def expect(given: Config, key: str, supported: tuple[Any, ...]) -> Any:
    """What stands there; without it the first of those that are supported."""
    value = given.get(key, supported[0])
    if value not in supported or type(value) not in map(type, supported):
        listed = ", ".join(map(str, supported))
        raise ValueError(f"{key} {value!r} is not supported; supported: {listed}")
    return value


def block(given: Config, key: str) -> tuple[int, int] | None:
    """Two sizes."""
    value = given.get(key)
    if isinstance(value, str) and re.fullmatch(r"\d{1,5}x\d{1,5}", value):
        value = [int(side) for side in value.split("x")]
    if value is None:
        return None
    sizes = isinstance(value, list) and [type(side) for side in value] == [int, int]
    if not sizes or not all(16 <= side <= 1 << 16 and side % 16 == 0 for side in value):
        raise ValueError(f"{key} {value!r} is not supported; supported: two multiples of 16")
    return value[0], value[1]


def names(given: Config, key: str) -> tuple[str, ...]:
    """A list of matrices."""
    value = given.get(key) or []
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"{key} must be a list of names")
    return tuple(value)


def matches(entry: str, name: str) -> bool:
    """Whether an entry of such a list means a matrix."""
    if entry.startswith("re:"):
        try:
            return re.match(entry.removeprefix("re:"), name) is not None
        except re.error:
            return False
    if "*" in entry:  # a pattern of matrices, or of modules that hold them
        return fnmatch.fnmatchcase(name, entry) or fnmatch.fnmatchcase(name, f"{entry}.*")
    return f".{entry}." in f".{name}."
