"""One engine on the demo model, which the tests of the client share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import penstock_launcher.model
from penstock import LLM

DEMO = penstock_launcher.model.DEMO


@pytest.fixture(scope="session")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLM]:
    """Small, so that prompts have to wait for seats: 8 of them."""
    folder: Path = tmp_path_factory.mktemp("llm")
    engine = LLM(
        DEMO,
        max_num_seqs=8,
        max_logprobs=30,
        quiet=True,
        launcher_options={"shard_uds_path": folder / "run", "device": "cpu"},
    )
    with engine:
        yield engine
    assert not list(folder.iterdir())
