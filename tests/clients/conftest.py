"""The server that the clients call."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.server import Server, running_server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The demo model, with the options of a server that nobody has tuned."""
    with running_server(tmp_path_factory.mktemp("clients"), "--device", "cpu") as running:
        yield running
