"""A program's connection, over a real socket, to a fake engine: bounds, ends and errors."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from array import array
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from penstock_proto.offline_pb2 import FromRouter, Parameters, Prompt, ToRouter
from penstock_router.api import make_app
from penstock_router.api.service import SERVICE
from penstock_router.fronts.frames import frame
from penstock_router.metrics import Metrics
from penstock_router.offline import session as module
from penstock_router.offline.server import SEQUENCES_A_SEAT, OfflineServer
from penstock_router.request import GenerationFailed
from penstock_router.text import TextModel
from router.api.conftest import CONFIG
from support.fake_engine import FakeEngine
from support.small_text import byte_level, write_folder

SECONDS = 60.0
GREEDY = {"temperature": 0, "max_tokens": 3}


class Program:
    """The other side of the socket. Keeps what it was told, by prompt."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer
        self.heard: list[FromRouter] = []
        self.ended: set[int] = set()  # prompts that were answered to their end

    def send(self, **fields: Any) -> None:
        self.writer.write(frame(ToRouter(**fields)))

    def ask(self, *prompts: Prompt, fields: dict[str, Any] | None = None) -> None:
        """Prompts with parameters 1."""
        parameters = Parameters(
            number=1, fields=json.dumps(GREEDY if fields is None else fields).encode()
        )
        for prompt in prompts:
            prompt.parameters = 1
        self.send(parameters=[parameters], prompt=prompts)

    async def until(self, enough: Callable[[Program], bool]) -> None:
        async with asyncio.timeout(SECONDS):
            while not enough(self):
                size = int.from_bytes(await self._reader.readexactly(4), "little")
                heard = FromRouter.FromString(await self._reader.readexactly(size))
                self.heard.append(heard)
                self.ended |= {piece.prompt for piece in heard.piece if piece.HasField("end")}

    @property
    def failed(self) -> dict[int, str]:
        return {failed.prompt: failed.message for one in self.heard for failed in one.failed}

    async def is_cut(self) -> bool:
        async with asyncio.timeout(SECONDS):
            try:
                while await self._reader.read(1 << 16):
                    pass
            except ConnectionError:
                pass
        return True


@dataclasses.dataclass
class World:
    """A server and its engine."""

    engine: FakeEngine
    path: Path

    async def connect(self) -> Program:
        program = Program(*await asyncio.open_unix_connection(str(self.path)))
        await program.until(lambda p: bool(p.heard))
        return program


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    write_folder(tmp_path / "model", byte_level())
    config = dataclasses.replace(CONFIG, model_path=str(tmp_path / "model"))
    text = TextModel.load(tmp_path / "model", None, 1)
    engine = FakeEngine()
    app = make_app(config, engine, text, Metrics(64, 96))
    server = await OfflineServer.open(app[SERVICE], tmp_path / "offline.sock")
    yield World(engine, tmp_path / "offline.sock")
    server.close()
    assert not (tmp_path / "offline.sock").exists()
    text.close()


def prompt(number: int, text: str = "one two", **fields: Any) -> Prompt:
    return Prompt(number=number, text=text, **fields)


async def test_the_socket_is_this_users_alone(world: World) -> None:
    assert world.path.stat().st_mode & 0o777 == 0o600
    program = await world.connect()
    hello = program.heard[0].hello
    assert (hello.most_prompts, hello.vocab_size) == (module.MOST_PROMPTS, 700)


async def test_prompts_are_answered(world: World) -> None:
    program = await world.connect()
    program.ask(prompt(5), Prompt(number=6, ids=array("I", [7, 8]).tobytes()))
    await program.until(lambda p: p.ended == {5, 6})
    started = {one.prompt: one for heard in program.heard for one in heard.started}
    assert array("I", started[6].ids).tolist() == [7, 8]
    pieces = [piece for heard in program.heard for piece in heard.piece]
    assert [array("I", piece.ids).tolist() for piece in pieces] == [[10, 11, 12]] * 2


async def test_a_stream_comes_in_pieces(world: World) -> None:
    program = await world.connect()
    program.ask(prompt(1, stream=True))
    await program.until(lambda p: p.ended == {1})
    pieces = [piece for heard in program.heard for piece in heard.piece]
    assert len(pieces) > 1
    assert b"".join(piece.ids for piece in pieces) == array("I", [10, 11, 12]).tobytes()


async def test_no_more_run_than_twice_the_slots(world: World) -> None:
    world.engine.hold = True
    program = await world.connect()
    program.ask(*map(prompt, range(100)))
    most = SEQUENCES_A_SEAT * world.engine.limits.max_batch_size
    while world.engine.live < most:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    assert world.engine.live == most
    world.engine.release()
    await program.until(lambda p: len(p.ended) == 100)


async def test_one_prompt_may_have_more_sequences_than_that(world: World) -> None:
    program = await world.connect()
    program.ask(prompt(1), fields={"n": 100, "max_tokens": 1})
    await program.until(lambda p: sum(len(heard.piece) for heard in p.heard) == 100)
    assert world.engine.live == 0


async def test_a_program_that_leaves_has_nothing_running(world: World) -> None:
    world.engine.hold = True
    program, other = await world.connect(), await world.connect()
    other.ask(prompt(1))
    program.ask(*map(prompt, range(30)))
    while world.engine.live < 16:
        await asyncio.sleep(0.01)
    program.writer.close()
    while world.engine.live > 1:
        await asyncio.sleep(0.01)
    world.engine.release()
    await other.until(lambda p: p.ended == {1})
    # and its room is free again
    other.ask(*map(prompt, range(100, 140)))
    await other.until(lambda p: len(p.ended) == 41)


async def test_cancelled_prompts(world: World) -> None:
    world.engine.hold = True
    program = await world.connect()
    program.ask(*map(prompt, range(40)))
    while world.engine.live < 16:
        await asyncio.sleep(0.01)
    program.send(cancel=range(1, 40))
    while world.engine.live > 1:
        await asyncio.sleep(0.01)
    world.engine.release()
    await program.until(lambda p: p.ended == {0})
    program.ask(prompt(50))
    await program.until(lambda p: p.ended == {0, 50})


async def test_errors_are_a_prompts_own(world: World) -> None:
    program = await world.connect()
    program.ask(
        prompt(1, "word " * 500),
        prompt(2),
        Prompt(number=3, ids=b"abc"),
        Prompt(number=4, ids=array("I", [700]).tobytes()),
        Prompt(number=5),
        prompt(6, priority=101),
        prompt(7, cache_salt="x" * 1025),
        Prompt(number=8, messages=b"[]"),
    )
    await program.until(lambda p: len(p.failed) == 7)
    assert program.ended <= {2}
    await program.until(lambda p: p.ended == {2})
    assert "must have less than 64 tokens" in program.failed[1]
    assert "4 bytes each" in program.failed[3]
    assert "token ids" in program.failed[4] and "700" in program.failed[4]
    assert "must be text or token ids" in program.failed[5]
    assert "`priority`" in program.failed[6] and "`cache_salt`" in program.failed[7]
    assert "`messages` cannot be empty" in program.failed[8]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"top_p": 7}, "`top_p`"),
        ({"no_such": 7}, "unknown field `no_such`"),
        ({"logprobs": 21}, "`logprobs` must be at most 20"),
        ({"n": 20_000}, "`n`"),
        ([], "must be a JSON object"),
        ({"temperature": float("nan")}, "not valid JSON"),
    ],
)
async def test_wrong_parameters(world: World, fields: Any, sentence: str) -> None:
    program = await world.connect()
    program.ask(prompt(1), prompt(2), fields=fields)
    await program.until(lambda p: p.failed.keys() == {1, 2})
    assert sentence in program.failed[1]
    assert all(one.parameters for heard in program.heard for one in heard.failed)
    program.send(prompt=[Prompt(number=3, parameters=9, text="x")])
    await program.until(lambda p: 3 in p.failed)
    assert "there are no parameters 9" in program.failed[3]
    assert world.engine.live == 0


async def test_an_engine_that_fails_says_why(world: World) -> None:
    world.engine.fail_after, world.engine.failure = 1, GenerationFailed("a shard is gone")
    program = await world.connect()
    program.ask(prompt(1), fields={"n": 3})
    await program.until(lambda p: p.failed == {1: "a shard is gone"})
    assert world.engine.live == 0


@pytest.mark.parametrize(
    "data",
    [
        frame(ToRouter())[:2] + b"\xff\xff" + b"x" * 100,  # a length beyond any
        b"\x03\x00\x00\x00\xff\xff\xff",  # no message
        frame(ToRouter(parameters=[Parameters(fields=b"{}")], prompt=[Prompt(text="x")] * 2)),
        frame(
            ToRouter(
                parameters=[Parameters(fields=b"{}")],
                prompt=[Prompt(number=i, text="x") for i in range(module.MOST_PROMPTS + 1)],
            )
        ),
        frame(
            ToRouter(parameters=[Parameters(number=i) for i in range(module.MOST_PARAMETERS + 1)])
        ),
    ],
)
async def test_who_breaks_the_protocol_is_cut(world: World, data: bytes) -> None:
    program = await world.connect()
    program.writer.write(data)
    assert await program.is_cut()
    other = await world.connect()
    other.ask(prompt(1))
    await other.until(lambda p: p.ended == {1})


async def test_who_reads_nothing_has_nothing_begun(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "UNREAD_BYTES", 10_000)
    program = await world.connect()
    program.ask(*map(prompt, range(1000)), fields={"max_tokens": 60, "temperature": 0})
    before = -1
    while before != len(world.engine.jobs):
        before = len(world.engine.jobs)
        await asyncio.sleep(0.5)
    assert before < 1000
    await program.until(lambda p: len(p.ended) == 1000)
