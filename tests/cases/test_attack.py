"""Rows of attacks that no other part tests: what a conversation may cost before it is refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from penstock_launcher.model import DEMO
from penstock_router.text import Conversation, TextModel, library
from penstock_router.text.library import TooManyTokens

LIMIT = 2047
WAYS: dict[str, Callable[[TextModel, Conversation], Awaitable[object]]] = {
    "H1b-chat": lambda model, page: model.render(page, limit=LIMIT),
    "H1b-chat_tokenize": lambda model, page: model.render(page, with_spans=True, limit=LIMIT),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("piece", ["[", "[<", "<|", "<|user|>"])
async def test_a_long_message_is_refused_before_it_is_tokenised(
    monkeypatch: pytest.MonkeyPatch, way: str, piece: str
) -> None:
    model = TextModel.load(DEMO, None, 1)
    text = piece * (1_900_000 // len(piece))
    monkeypatch.setattr(library, "encode", None)  # whoever calls it fails
    try:
        with pytest.raises(TooManyTokens, match="at least"):
            await WAYS[way](model, Conversation([{"role": "user", "content": text}]))
    finally:
        model.close()
