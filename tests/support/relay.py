"""A relay between two processes that counts their messages and does something to the n-th."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

KINDS = ("drop", "truncate", "garble", "stall", "delay")
DELAY = 0.05  # seconds
_NUMBERS = itertools.count()
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

# Bytes of the first message of a buffer, as far as they can be known.
Measure = Callable[[bytes], int | None]


def http2(buffer: bytes) -> int | None:
    """A frame: 3 bytes of its length in front of 6 others. The client begins with a preface."""
    if buffer.startswith(b"PRI"):
        return len(PREFACE)
    return 9 + int.from_bytes(buffer[:3], "big") if len(buffer) >= 9 else None


def prefixed(buffer: bytes) -> int | None:
    """4 bytes of its length in front, as between fronts and router."""
    return 4 + int.from_bytes(buffer[:4], "little") if len(buffer) >= 4 else None


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to the n-th message of a direction, counted over all connections."""

    kind: str
    number: int
    up: bool  # from who connects to who listens

    def __post_init__(self) -> None:
        assert self.kind in KINDS


@dataclass
class Relay:
    """Passes bytes on, message by message."""

    measure: Measure
    fault: Fault | None = None
    seen: Counter[bool] = field(default_factory=Counter)  # messages, by direction
    struck: bool = False

    async def join(
        self,
        ours: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        theirs: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        """Until one side ends; then both do."""
        try:
            async with asyncio.TaskGroup() as tasks:
                pumps = [
                    tasks.create_task(self._pump(ours[0], theirs[1], True)),
                    tasks.create_task(self._pump(theirs[0], ours[1], False)),
                ]
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                for pump in pumps:
                    pump.cancel()
        finally:
            for _, writer in (ours, theirs):
                writer.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, up: bool
    ) -> None:
        buffer = b""
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                buffer += data
                while (size := self.measure(buffer)) is not None and len(buffer) >= size:
                    message, buffer = buffer[:size], buffer[size:]
                    self.seen[up] += 1
                    if not await self._pass(message, writer, up):
                        return

    async def _pass(self, message: bytes, writer: asyncio.StreamWriter, up: bool) -> bool:
        """False: nothing follows."""
        fault = self.fault
        if fault is None or (fault.up, fault.number) != (up, self.seen[up]):
            writer.write(message)
            return True
        self.struck = True
        match fault.kind:
            case "drop":
                return False
            case "truncate":
                writer.write(message[: len(message) // 2])
                await writer.drain()
                return False
            case "garble":
                writer.write(bytes(byte ^ 0xFF for byte in message))
                await writer.drain()
            case "stall":
                await asyncio.Event().wait()
            case "delay":
                await asyncio.sleep(DELAY)
                writer.write(message)
        return True


@contextlib.asynccontextmanager
async def relayed(target: Path, relay: Relay) -> AsyncIterator[Path]:
    """A Unix socket behind which the target's stands."""
    # gRPC remembers addresses that failed, for a while and for all channels
    path = target.with_name(f"relay-{next(_NUMBERS)}-{target.name}")
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await relay.join((reader, writer), await asyncio.open_unix_connection(target))

    server = await asyncio.start_unix_server(connected, path)
    try:
        yield path
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        path.unlink(missing_ok=True)
