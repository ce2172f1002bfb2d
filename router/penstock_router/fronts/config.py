"""What a front is told on its standard input: one line at its start, one when the shards are up."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Self, TextIO

from penstock_router.config import RouterConfig
from penstock_router.limits import ServerLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontConfig:
    """The first line."""

    router: RouterConfig
    frames: int  # descriptor: the socket to the scheduling process
    handover: int  # descriptor: the socket that clients' connections come from
    permits: int  # descriptor: memory with the permits that each front holds
    place: int  # of this front's among them

    def line(self) -> bytes:
        """As the front reads it."""
        return json.dumps(dataclasses.asdict(self)).encode() + b"\n"

    @classmethod
    def read(cls, source: TextIO) -> Self:
        """Raises EOFError when the scheduling process is gone."""
        values = _line(source)
        router = RouterConfig.from_json(json.dumps(values.pop("router")))
        return cls(router=router, **values)


def limits_line(limits: ServerLimits) -> bytes:
    """The second line."""
    return json.dumps(dataclasses.asdict(limits)).encode() + b"\n"


def read_limits(source: TextIO) -> ServerLimits:
    """Waits for the shards. Raises EOFError when the scheduling process is gone."""
    values = _line(source)
    return ServerLimits(**values | {"step_rows": tuple(values["step_rows"])})


def _line(source: TextIO) -> dict[str, Any]:
    line = source.readline()
    if not line:
        raise EOFError
    values: dict[str, Any] = json.loads(line)
    return values
