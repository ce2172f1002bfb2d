"""Messages between processes: a peer that is broken, or not who it should be."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
import tempfile
from array import array
from collections.abc import Callable
from pathlib import Path

from google.protobuf.message import DecodeError
from tests.fuzz.target import Target

from penstock_proto import front_pb2, offline_pb2, shard_pb2
from penstock_proto.request_pb2 import Request
from support.fake_engine import FakeEngine
from support.small_text import byte_level, write_folder

FRAMES = 3  # that one input may be: parted by this
PARTING = b"\xfe\xfd\xfc"


class Lenient(FakeEngine):
    """Looks at nothing: the processes of one router trust each other's values, not their forms."""

    def submit(self, request, listener):  # type: ignore[no-untyped-def]
        limits, self.limits = self.limits, dataclasses.replace(self.limits)
        try:
            return super().submit(request, listener)
        except AssertionError:
            self.jobs.pop() if len(self.jobs) > 100_000 else None
            from penstock_router.request import GenerationFailed

            raise GenerationFailed("refused") from None
        finally:
            self.limits = limits


def front() -> Target:
    """What an HTTP process says to the one that schedules."""
    from penstock_router.fronts.frames import BadFrame
    from penstock_router.fronts.front_link import FrontLink
    from penstock_router.metrics import Metrics
    from penstock_router.quotas import Quotas

    loop = asyncio.new_event_loop()
    metrics = Metrics(64, 96)

    async def play(data: bytes) -> None:
        quotas, engine = Quotas(), Lenient(script=[10, 2])
        link = FrontLink(engine, metrics, lambda frame: None, quotas)  # type: ignore[arg-type]
        try:
            for part in data.split(PARTING, FRAMES):
                link.receive(front_pb2.FromFront.FromString(part))
                await asyncio.sleep(0)
        finally:
            link.gone()
            assert not engine.live

    request = Request(prompt=array("I", [5, 6, 7]).tobytes(), max_new_tokens=4, name="a")
    request.sampling.top_p = request.sampling.typical_p = 1.0
    request.sampling.repetition_penalty = 1.0
    submission = front_pb2.Submission(sequence=1, request=request)
    frames = [
        front_pb2.FromFront(submit=[submission], lag=[0.1], ready=True),
        front_pb2.FromFront(stop=[front_pb2.Stop(sequence=1, generated=2)], cancel=[1], scrape=3),
        front_pb2.FromFront(
            count=front_pb2.Count(
                requests=2, failed=["validation"], served=[front_pb2.Served(total=1.0)]
            ),
            abort=[front_pb2.Abort(name="a")],
            flush=7,
        ),
        front_pb2.FromFront(
            key_begin=[front_pb2.KeyBegin(number=1, name="a", answer=True)],
            key_reserve=[front_pb2.KeyReserve(number=1, tokens=9)],
            key_settle=[front_pb2.KeySettle(number=1, prompt=3, generated=5)],
        ),
        front_pb2.FromFront(
            prepare=[
                front_pb2.Preparation(number=4, grammar=shard_pb2.Grammar(text='{"type": "null"}'))
            ]
        ),
    ]
    return Target(
        _seeds(frames), lambda data: loop.run_until_complete(play(data)), (BadFrame, DecodeError),
        close=loop.close,
    )  # fmt: skip


def router() -> Target:
    """What the scheduling process says to one of HTTP."""
    from penstock_router.fronts.frames import BadFrame
    from penstock_router.fronts.remote_engine import Outbox, RemoteEngine
    from penstock_router.request import GenerationRequest

    loop = asyncio.new_event_loop()

    class Heard:
        def __getattr__(self, name: str) -> Callable[..., bool]:
            return lambda *values: False

    async def play(data: bytes) -> None:
        engine = RemoteEngine(FakeEngine().limits, Outbox(lambda frame: None))
        for _ in range(2):
            engine.submit(GenerationRequest((1, 2, 3), 4), Heard())  # type: ignore[arg-type]
        for part in data.split(PARTING, FRAMES):
            engine.receive(part)

    frames = [
        front_pb2.ToFront(sequence=[1, 2], token=[5, 6], logprob=[-0.5, -0.25], rank=[1, 9]),
        front_pb2.ToFront(
            top=[shard_pb2.TopTokens(row=0, token=[1], logprob=[-1.0])], sequence=[1], token=[7]
        ),
        front_pb2.ToFront(
            end=[front_pb2.End(sequence=1, generated=2, total=0.5)],
            failure=[front_pb2.Failure(sequence=2, kind=4, message="no")],
        ),
        front_pb2.ToFront(
            prompt=[
                front_pb2.ScoredPrompt(
                    sequence=1,
                    logprob=[float("nan"), -0.5, -0.5],
                    top_token=bytes(8),
                    top_logprob=bytes(8),
                    rank=[0, 1, 2],
                )
            ]
        ),
        front_pb2.ToFront(
            metrics=front_pb2.Metrics(scrape=1, text=b"x"),
            api_key=['"k"', '{"name": "a", "key": "b", "tokens_per_minute": 5}'],
            prepared=[front_pb2.Prepared(number=1)],
            flushed=[front_pb2.Flushed(number=1, done=True)],
            key_verdict=[front_pb2.KeyVerdict(number=1, refused="tokens_per_minute", wait=1.0)],
            draining=True,
            trouble="late",
        ),
    ]
    run = lambda data: loop.run_until_complete(play(data))  # noqa: E731
    return Target(_seeds(frames), run, (BadFrame,), close=loop.close)


def offline() -> Target:
    """What a program says that brings batches of its own (`penstock.LLM`)."""
    from penstock_router.api import make_app
    from penstock_router.api.service import SERVICE
    from penstock_router.metrics import Metrics
    from penstock_router.offline.session import Session
    from penstock_router.text import TextModel
    from router.api.conftest import CONFIG

    folder = Path(tempfile.mkdtemp(prefix="penstock-fuzz-"))
    write_folder(folder, byte_level())
    text = TextModel.load(folder, None, 1)
    loop = asyncio.new_event_loop()
    engine = FakeEngine(script=[10, 2])
    config = dataclasses.replace(CONFIG, model_path=str(folder))

    async def play(data: bytes) -> None:
        app = make_app(config, engine, text, Metrics(64, 96))
        session = Session(app[SERVICE], asyncio.Semaphore(16))
        frames = data.split(PARTING, FRAMES)
        for part in frames:
            session._receive(part)
        async with asyncio.timeout(120):
            while session._running and not session._waiting.empty():
                await asyncio.sleep(0)
        session._lost()
        await asyncio.wait(session._workers)
        assert not engine.live
        engine.jobs.clear()

    def close() -> None:
        text.close()
        loop.close()
        shutil.rmtree(folder)

    parameters = offline_pb2.Parameters(
        number=1, fields=b'{"max_tokens": 4, "temperature": 0.5, "stop": ["x"], "logprobs": 2}'
    )
    frames = [
        offline_pb2.ToRouter(
            parameters=[parameters], prompt=[offline_pb2.Prompt(number=1, parameters=1, text="hi")]
        ),
        offline_pb2.ToRouter(
            parameters=[parameters],
            prompt=[
                offline_pb2.Prompt(number=2, parameters=1, ids=array("I", [7, 8]).tobytes()),
                offline_pb2.Prompt(
                    number=3, parameters=1, messages=b'[{"role": "user", "content": "hi"}]'
                ),
            ],
            cancel=[2],
        ),
        offline_pb2.ToRouter(forget=[1], prompt=[offline_pb2.Prompt(number=4, stream=True)]),
    ]
    run = lambda data: loop.run_until_complete(play(data))  # noqa: E731
    return Target(_seeds(frames), run, close=close)


def shard() -> Target:
    """What the router says to a shard: a command is carried out, refused, or a `BadCommand`."""
    from penstock_shard.steps.slots import BadCommand
    from support.checkpoints import make_checkpoint
    from support.local_shard import LocalShard, load_model

    folder = Path(tempfile.mkdtemp(prefix="penstock-fuzz-"))
    make_checkpoint(folder, "llama2", num_hidden_layers=1)
    loaded = load_model(folder)
    books: list[LocalShard] = []  # what is left of the last input's

    def run(data: bytes) -> None:
        if not books:
            books.append(LocalShard(loaded))
        shard = books.pop()  # behind an error no two books agree, so there are new ones
        for part in data.split(PARTING, FRAMES):
            command = shard_pb2.StepCommand.FromString(part)
            command.step, command.repeat = shard._step, min(command.repeat, 8)
            shard._step += command.repeat
            for pending in shard.runner.execute(command):
                pending.build()
        shard.release(*shard.runner.book.active.nonzero()[0].tolist())
        books.append(shard)

    first = LocalShard(loaded)
    admit = [first.admission(0, [5, 6, 7]), first.admission(1, [1] * 40)]
    frames = [
        shard_pb2.StepCommand(
            repeat=1, admit=admit[:1], chunk_slot=[0], chunk_length=[3], decode_changed=True
        ),
        shard_pb2.StepCommand(repeat=2, decode_changed=True, decode=[0]),
        shard_pb2.StepCommand(
            repeat=1, admit=admit[1:], chunk_slot=[1], chunk_length=[40], decode=[0]
        ),
        shard_pb2.StepCommand(repeat=1, release=[0], decode_changed=True),
    ]
    data = [frame.SerializeToString() for frame in frames]
    seeds = [PARTING.join(data[:count]) for count in (1, 2, 3)]
    seeds += [PARTING.join((data[0], data[1], data[3])), *data]
    return Target(seeds, run, (BadCommand, DecodeError), close=lambda: shutil.rmtree(folder))


def _seeds(frames: list) -> list[bytes]:  # type: ignore[type-arg]
    data = [frame.SerializeToString() for frame in frames]
    return [*data, PARTING.join(data[:FRAMES])]
