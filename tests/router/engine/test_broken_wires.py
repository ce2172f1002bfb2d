"""Something happens to the n-th message between router and shard, for each n of a conversation.

Nothing hangs, every request ends once, with its tokens or with a typed error, and nothing is left.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock_router import shard_client
from penstock_router.request import Finish, GenerationFailed, GenerationRequest
from penstock_router.shard_client import ShardFailure
from router.engine.conftest import Recorder, running_engine
from support.fake_shard import expected_tokens
from support.relay import KINDS, Fault, Relay, http2

PROMPTS = ((1, 2, 3), tuple(range(40, 70)), (9, 8))
TOKENS = 12
LATE = 2.0  # seconds after which a step, or a warm-up, is called dead


def fresh(folder: Path) -> Path:
    """gRPC remembers addresses that failed, for a while and for all channels."""
    path = folder / str(len(list(folder.iterdir())))
    path.mkdir()
    return path


async def conversation(folder: Path, relay: Relay) -> bool:
    """Start an engine, have some requests served, and look at what is left. Whether all was well;
    what is not is an error of the right type."""
    patient = relay.fault is None or relay.fault.kind != "stall"
    try:
        async with running_engine(
            fresh(folder),
            relay=relay,
            ranks=2,
            step_timeout=30.0 if patient else LATE,
            step_seconds=0.001,
        ) as rig:
            listeners = [Recorder() for _ in PROMPTS]
            numbers = []
            try:
                for prompt, listener in zip(PROMPTS, listeners, strict=True):
                    numbers.append(rig.engine.submit(GenerationRequest(prompt, TOKENS), listener))
                gone = Recorder()
                rig.engine.cancel(rig.engine.submit(GenerationRequest((5,), TOKENS), gone))
            except GenerationFailed:  # it is known already that the shards are gone
                listeners = listeners[: len(numbers)]
            ends = [await listener.wait() for listener in listeners]
            for prompt, listener, end in zip(PROMPTS, listeners, ends, strict=False):
                expected = expected_tokens(prompt, TOKENS, rig.model)
                assert listener.tokens == expected[: len(listener.tokens)]
                if isinstance(end, Finish):
                    assert len(listener.tokens) == TOKENS
                else:
                    assert type(end) is GenerationFailed and "shard" in rig.engine.trouble
            rig.scheduler.check_integrity()
            assert rig.scheduler.blocks.used == 0 and not rig.scheduler.running
            return all(isinstance(end, Finish) for end in ends) and not rig.engine.trouble
    except ShardFailure as error:  # at the start
        assert "shard 1" in str(error)
        return False


@pytest.mark.parametrize("up", [True, False], ids=["to the shard", "to the router"])
@pytest.mark.parametrize("kind", KINDS)
async def test_at_every_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, up: bool
) -> None:
    monkeypatch.setattr(shard_client, "WARM_UP_SECONDS", LATE if kind == "stall" else 60.0)
    clean = Relay(http2)
    assert await conversation(tmp_path, clean)
    broken = 0
    # Each step brings a few frames; one that hangs costs its time, so of those some are tried.
    for number in range(1, clean.seen[up] + 1, 9 if kind == "stall" else 3):
        relay = Relay(http2, Fault(kind, number, up))
        well = await conversation(tmp_path, relay)
        assert well or relay.struck or kind == "stall"  # whose short times load may pass
        broken += not well
    assert broken if kind != "delay" else not broken


@pytest.mark.full
@pytest.mark.parametrize("up", [True, False])
@pytest.mark.parametrize("kind", KINDS)
async def test_at_every_single_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, up: bool
) -> None:
    monkeypatch.setattr(shard_client, "WARM_UP_SECONDS", LATE if kind == "stall" else 60.0)
    clean = Relay(http2)
    assert await conversation(tmp_path, clean)
    for number in range(1, clean.seen[up] + 3):
        await conversation(tmp_path, Relay(http2, Fault(kind, number, up)))
