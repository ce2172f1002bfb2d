"""Tiny checkpoints, made once a session."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.checkpoints import make_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """checkpoint(family): a model folder that nobody may change."""
    made: dict[str, Path] = {}

    def make(family: str) -> Path:
        if family not in made:
            made[family] = make_checkpoint(tmp_path_factory.mktemp(family) / "model", family)
        return made[family]

    return make


@pytest.fixture
def own_checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """own_checkpoint(family, **config): a model folder that the test may change."""
    number = itertools.count()

    def make(family: str = "llama2", **overrides: Any) -> Path:
        return make_checkpoint(tmp_path / f"model-{next(number)}", family, **overrides)

    return make
