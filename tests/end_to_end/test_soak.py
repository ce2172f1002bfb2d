"""The soak of tests/soak in short: every request is accounted for, and at rest nothing is held."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.attack.target import loopback
from tests.soak.kinds import KINDS
from tests.soak.traffic import Account, soak

from support.server import running_server

SECONDS = float(os.environ.get("PENSTOCK_SOAK_SECONDS", "20"))


@pytest.mark.full
async def test_every_request_is_accounted_for(tmp_path: Path) -> None:
    arguments = ("--device", "cpu", "--num-shard", "1", "--http-processes", "2")
    with running_server(tmp_path, *arguments) as server:
        account = await soak(loopback(server.url), SECONDS, clients=16, seed=1)
    assert not account.faults, "\n".join(account.faults[:10])
    ends = {kind for kind, _ in account.ended}
    assert ends == set(KINDS), "not every kind had its turn"
    assert account.ended["leaving", "left"] and account.samples[-1][1] > 0


def test_what_falls_short_is_named() -> None:
    account = Account()
    account.sent["generate"] = 3
    account.ended["generate", "done"] = 1
    account.left = {"penstock_kv_blocks_used": 2.0, "tgi_queue_size": 0.0}
    assert account.faults == [
        "3 requests were sent, 1 have ended",
        "penstock_kv_blocks_used is 2 at rest",
    ]
