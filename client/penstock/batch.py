"""Many prompts in one call: sent as others end, so that neither side holds more than a window."""

from __future__ import annotations

import json
import queue
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from penstock.assembly import Assembly
from penstock.connection import Connection, Message
from penstock.embedded import ServerError
from penstock.engine_args import NAMES
from penstock.outputs import GenerationError
from penstock.sampling_params import SamplingParams
from penstock.server_log import renamed
from penstock_proto.offline_pb2 import Failed, Parameters, Piece, Prompt, Started

WINDOW = 2048  # prompts of a call that have been sent and have not ended
WINDOW_BYTES = 64 << 20  # of those
PORTION = 64  # prompts that are worth a frame
KEPT_PARAMETERS = 256  # of a call, though none of its prompts has them at the moment


@dataclass(slots=True)
class Ask:
    """A prompt with all that belongs to it."""

    place: int  # among those of the call
    message: Prompt
    assembly: Assembly
    fields: bytes  # how it is continued
    conversation: bytes = b""
    size: int = 0  # bytes
    error: Exception | None = None  # why there is no output, or none to its end


def fields_of(params: SamplingParams, extra: Mapping[str, Any]) -> bytes:
    """The body that says how a prompt is continued, but for the seed, which each prompt has."""
    body = params.body() | dict(extra)
    body.pop("seed", None)
    return json.dumps(body).encode()


def failure(message: Failed) -> Exception:
    """What a program gets of it."""
    sentence = renamed(message.message, NAMES)
    if message.kind == Failed.INVALID:
        return ValueError(sentence)
    return GenerationError(sentence)


@dataclass(slots=True)
class _Known:
    """Parameters that were sent, and how many prompts have them now."""

    numbers: dict[tuple[bytes, bytes], int] = field(default_factory=dict)
    uses: Counter[int] = field(default_factory=Counter)

    def take_idle(self) -> list[int]:
        """Forget those that no prompt has, where there are many."""
        if len(self.numbers) <= KEPT_PARAMETERS:
            return []
        idle = [number for number in self.numbers.values() if not self.uses[number]]
        gone = set(idle)
        self.numbers = {key: one for key, one in self.numbers.items() if one not in gone}
        return idle


class Batch:
    """One call. Iterate over it once: each prompt comes when it has ended, in any order.

    Leaving the iteration, by whatever way, gives up what still runs.
    """

    def __init__(self, connection: Connection, asks: Iterable[Ask]) -> None:
        self._connection = connection
        self._asks = iter(asks)
        self._events: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._running: dict[int, Ask] = {}
        self._bytes = 0
        self._known = _Known()
        self._held: Ask | None = None  # it did not fit
        self._all_sent = False

    def __iter__(self) -> Iterator[Ask]:
        """Raises ServerError where the server is gone, ValueError for parameters that break a
        rule: with them no prompt can be continued."""
        try:
            while self._feed() or self._running:
                message = self._events.get()
                if (ended := self._take(message)) is not None:
                    yield ended
        finally:
            numbers = list(self._known.numbers.values())
            self._connection.give_up(list(self._running), numbers)

    def _feed(self) -> bool:
        """Send what the window has room for; whether something is left to send."""
        if self._all_sent or len(self._running) > WINDOW - PORTION:
            return not self._all_sent
        portion: list[Prompt] = []
        fresh: list[Parameters] = []
        while len(self._running) < WINDOW:
            ask = self._held or next(self._asks, None)
            self._held = None
            if ask is None:
                self._all_sent = True
                break
            if not self._has_room(ask, idle=not self._running):
                self._held = ask
                break
            portion.append(self._completed(ask, fresh))
            self._running[ask.message.number] = ask
        if portion:
            self._connection.send(portion, self._events.put, fresh)
        if idle := self._known.take_idle():
            self._connection.give_up((), idle)
        return not self._all_sent

    def _has_room(self, ask: Ask, idle: bool) -> bool:
        """Number a prompt, where it may be sent now. idle: nothing is sent, so it may wait for
        other calls; one that is too large for the window has all of it."""
        size = ask.size = ask.message.ByteSize()
        if not idle and self._bytes + size > WINDOW_BYTES:
            return False
        number = self._connection.take_place(wait=idle)
        if number is None:
            return False
        ask.message.number = number
        self._bytes += size
        return True

    def _completed(self, ask: Ask, fresh: list[Parameters]) -> Prompt:
        key = ask.fields, ask.conversation
        number = self._known.numbers.get(key)
        if number is None:
            parameters = self._connection.parameters(*key)
            fresh.append(parameters)
            number = self._known.numbers[key] = parameters.number
        self._known.uses[number] += 1
        ask.message.parameters = number
        return ask.message

    def _take(self, message: Message) -> Ask | None:
        """A prompt that ends with this message."""
        if not isinstance(message, Started | Piece | Failed):
            raise ServerError(self._connection.why())
        ask = self._running[message.prompt]
        match message:
            case Started():
                ask.assembly.start(message)
                return None
            case Piece():
                ask.assembly.add(message)
                if not ask.assembly.finished:
                    return None
            case Failed():
                if message.parameters:
                    raise failure(message)
                ask.error = failure(message)
        del self._running[message.prompt]
        self._connection.release(message.prompt)
        self._bytes -= ask.size
        self._known.uses[ask.message.parameters] -= 1
        return ask
