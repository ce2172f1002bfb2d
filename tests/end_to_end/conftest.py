"""Servers that the end-to-end tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.server import Server, running_server

PLACES = [
    pytest.param(("--num-shard", "2", "--device", "cpu"), id="cpu"),
    pytest.param(("--num-shard", "1", "--device", "cuda"), id="cuda", marks=pytest.mark.gpu),
]


@pytest.fixture(scope="session", params=PLACES)
def demo_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """The demo model on two shards, or on a GPU."""
    folder: Path = tmp_path_factory.mktemp("demo")
    with running_server(folder, *request.param, "--max-concurrent-requests", "256") as server:
        yield server
