"""Servers that the end-to-end tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.server import Server, running_server


@pytest.fixture(scope="module")
def demo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The demo model on two shards."""
    folder: Path = tmp_path_factory.mktemp("demo")
    with running_server(
        folder, "--num-shard", "2", "--device", "cpu", "--max-concurrent-requests", "256"
    ) as server:
        yield server
