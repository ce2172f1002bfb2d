"""What one exchange says: when its tokens came, and how many they were."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from penstock.bench.protocols import Protocol
from penstock.bench.stream_client import Exchange

SHOWN = 200  # characters of what a server said instead of an answer


def measure(exchange: Exchange, protocol: Protocol) -> dict[str, Any]:
    """Times in seconds of time.monotonic(), gaps between tokens in integer microseconds.

    Where the server counts along, an event's gap is divided among the tokens that it brings; else
    an event is one token. `tokens` is what the server reports, else the number of events.
    """
    heard = _Heard(exchange.failure)
    try:
        if exchange.status == 200:
            heard.read(exchange, protocol)
        else:
            said = exchange.body()[:SHOWN].decode(errors="replace")
            heard.failure = heard.failure or f"HTTP {exchange.status}: {said}"
    except (ValueError, TypeError, AttributeError) as error:
        heard.failure = heard.failure or f"not an answer of this protocol: {error}"
    times, counted = heard.times, heard.counted
    if heard.failure is None and not times:
        heard.failure = "the answer holds no token"
    brought, gaps = _gaps(times, heard.totals)
    return {
        "started": exchange.started,
        "first": times[0] if times else None,
        "last": times[-1] if times else None,
        "tokens": counted.get("tokens", len(times)),
        "first_tokens": brought[0] if brought else 0,  # that the first event brings
        "events": len(times),
        "reported": "tokens" in counted,
        "prompt_tokens": counted.get("prompt_tokens"),
        "cached_tokens": counted.get("cached_tokens"),
        "failure": heard.failure,
        "gaps_us": gaps,
    }


@dataclass(slots=True)
class _Heard:
    """What the events of an answer say."""

    failure: str | None
    times: list[float] = field(default_factory=list)  # of events that bring tokens
    totals: list[int | None] = field(default_factory=list)  # tokens up to each of them
    counted: dict[str, int] = field(default_factory=dict)  # by the server

    def read(self, exchange: Exchange, protocol: Protocol) -> None:
        """Raises ValueError, TypeError or AttributeError for what is no answer."""
        for when, data in exchange.events():
            if data == b"[DONE]":
                continue
            event = orjson.loads(data)
            if event.get("error"):
                self.failure = f"error event: {str(event['error'])[:SHOWN]}"
            seen = protocol.read(event)
            for name in ("tokens", "prompt_tokens", "cached_tokens"):
                if (value := getattr(seen, name)) is not None:
                    self.counted[name] = value
            if seen.token:
                self.times.append(when)
                self.totals.append(seen.total)


def _gaps(times: list[float], totals: list[int | None]) -> tuple[list[int], list[int]]:
    """How many tokens each event brings, and the microseconds between one token and the next."""
    known = [total for total in totals if total is not None]
    brought = [1] * len(times)
    if times and len(known) == len(times):
        steps = [int(n) for n in np.diff(known, prepend=0)]
        if min(steps) > 0:
            brought = steps
    if len(times) < 2:
        return brought, []
    each = np.asarray(brought[1:])
    gaps = np.repeat(np.diff(times) * 1e6 / each, each)
    return brought, [int(gap) for gap in gaps]
