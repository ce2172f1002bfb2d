"""Real chat templates, and what transformers makes of some conversations with them."""

from __future__ import annotations

import functools
import json
from datetime import datetime
from typing import Any

import pytest

from penstock_router.templates import environment
from penstock_router.templates.template import ChatTemplate, Script
from support.assets import assets


@functools.cache
def expected_chat() -> dict[str, Any]:
    """conversations by name, bos_token, eos_token, and rendered: by template and conversation."""
    data: dict[str, Any] = json.loads((assets() / "expected" / "chat.json").read_text())
    return data


def real_names() -> list[str]:
    """The templates' names; none where the assets are missing."""
    folder = assets() / "templates"
    return sorted(path.stem for path in folder.glob("*.jinja"))


def source(name: str) -> str:
    """A template, as its model folder holds it."""
    return (assets() / "templates" / f"{name}.jinja").read_text(encoding="utf-8")


@functools.cache
def real_template(name: str) -> ChatTemplate:
    """A template with the special tokens that the expected texts have."""
    data = expected_chat()
    tokens = {"bos_token": data["bos_token"], "eos_token": data["eos_token"]}
    return ChatTemplate(Script(source(name), tokens))


def on_the_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let it be the day on which the texts were rendered."""

    class Day(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime(2026, 11, 28)

    monkeypatch.setattr(environment, "datetime", Day)
