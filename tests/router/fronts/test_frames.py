"""Frames: whatever the kernel makes of the bytes, the messages are those that were sent."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from penstock_proto.front_pb2 import Failure, ToFront
from penstock_router.fronts.frames import MOST_BYTES, Frames


def message(text: str) -> ToFront:
    return ToFront(failure=[Failure(sequence=1, message=text)])


def framed(data: bytes) -> bytes:
    return len(data).to_bytes(4, "little") + data


@dataclass
class End:
    """One end of a pair of sockets, and what it heard."""

    heard: list[bytes] = field(default_factory=list)
    lost: int = 0
    frames: Frames = field(init=False)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.frames = Frames(self.heard.append, self._lost)

    def _lost(self) -> None:
        self.lost += 1
        self.gone.set()

    async def until_lost(self) -> None:
        await asyncio.wait_for(self.gone.wait(), 60)
        await asyncio.sleep(0.01)
        assert self.lost == 1


@contextlib.asynccontextmanager
async def one_end() -> AsyncIterator[tuple[End, socket.socket]]:
    """An end, and the bare socket at the other one."""
    ours, its = socket.socketpair()
    end = End()
    await asyncio.get_running_loop().create_unix_connection(lambda: end.frames, sock=ours)
    its.setblocking(False)
    with its:
        yield end, its
    end.frames.close()
    await end.until_lost()


@given(
    bodies=st.lists(st.binary(max_size=600), max_size=8),
    cuts=st.lists(st.integers(0, 5000), max_size=30),
)
def test_any_split_gives_the_same_messages(bodies: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(framed(body) for body in bodies)
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    end = End()
    for start, stop in zip(places, places[1:], strict=False):
        end.frames.data_received(stream[start:stop])
    assert end.heard == bodies


def test_a_byte_at_a_time() -> None:
    end = End()
    bodies = [b"", b"x", b"y" * 300, b""]
    for byte in b"".join(framed(body) for body in bodies):
        end.frames.data_received(bytes([byte]))
    assert end.heard == bodies


async def test_both_directions_over_a_socket() -> None:
    """Messages of any size arrive whole and in order, though the socket takes 200 KB at a time."""
    ours, its = socket.socketpair()
    loop = asyncio.get_running_loop()
    one, other = End(), End()
    await loop.create_unix_connection(lambda: one.frames, sock=ours)
    await loop.create_unix_connection(lambda: other.frames, sock=its)
    sent = [message("x" * size) for size in (0, 1, 70_000, 3_000_000, 5, 800_000)]
    for frame in sent:
        one.frames.send(frame)
        other.frames.send(frame)
    assert one.frames.unread > 0
    one.frames.close()  # what is left still goes out
    await asyncio.gather(one.until_lost(), other.until_lost())
    assert [ToFront.FromString(data) for data in other.heard] == sent
    assert other.frames.unread == 0


async def test_an_oversize_length_ends_the_connection() -> None:
    async with one_end() as (end, its):
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(its, framed(b"good"))
        await loop.sock_sendall(its, (MOST_BYTES + 1).to_bytes(4, "little"))
        await end.until_lost()
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(loop.sock_recv(its, 1), 60) == b""
        assert end.heard == [b"good"]


async def test_the_largest_length_is_waited_for() -> None:
    async with one_end() as (end, its):
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(its, MOST_BYTES.to_bytes(4, "little") + b"x")
        await asyncio.sleep(0.05)
        assert not end.lost and not end.heard


async def test_half_a_frame_at_the_end_is_no_message() -> None:
    for cut in (1, 3, 4, 9):
        async with one_end() as (end, its):
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(its, framed(b"whole") + framed(b"and a half")[:cut])
            its.shutdown(socket.SHUT_WR)
            await end.until_lost()
            assert end.heard == [b"whole"]


async def test_send_before_and_after_the_connection_is_harmless() -> None:
    End().frames.send(message("nobody is there"))
    End().frames.close()
    async with one_end() as (end, its):
        end.frames.close()
        end.frames.send(message("too late"))
        await end.until_lost()
        end.frames.send(message("much too late"))
        assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(its, 100), 60) == b""
        assert end.frames.unread == 0


async def test_send_to_one_that_has_died() -> None:
    async with one_end() as (end, its):
        its.close()
        for _ in range(20):
            end.frames.send(message("x" * 1000))
            await asyncio.sleep(0)
        await end.until_lost()
