"""Clients that cannot read what TGI added to chat streams after them."""

from __future__ import annotations

import json
from collections.abc import Set
from typing import Any

import pytest

from penstock_router.api.old_clients import is_old

HUB = "unknown/None; hf_hub/{}; python/3.11.7; torch/2.13.0"
OF_TGI = frozenset(
    {"model", "messages", "repetition_penalty", "logit_bias", "tools", "tool_choice"}
)


@pytest.mark.parametrize(
    ("agent", "fields", "old"),
    [
        (HUB.format("0.23.5"), frozenset(), True),
        (HUB.format("0.24.0"), OF_TGI, False),
        (HUB.format("1.33.0"), OF_TGI, False),
        ("python-requests/2.34.2", OF_TGI, True),
        ("Python/3.11 aiohttp/3.14.5", OF_TGI, True),
        ("python-requests/2.34.2", OF_TGI - {"repetition_penalty"}, False),
        ("OpenAI/Python 3.52.0", OF_TGI, False),
        ("", frozenset(), False),
    ],
)
def test_who_is_old(agent: str, fields: Set[str], old: bool) -> None:
    assert is_old(agent, fields) is old


@pytest.mark.parametrize("old", [True, False])
async def test_what_they_are_sent(serve: Any, old: bool) -> None:
    client = await serve()
    nothing = dict.fromkeys(OF_TGI - {"model", "messages"}) if old else {}
    body = {"messages": [{"role": "user", "content": "Hi"}], "stream": True, **nothing}
    status, text = await client.stream("/v1/chat/completions", body)
    assert status == 200
    events = [event.removeprefix("data: ") for event in text.split("\n\n") if event]
    assert (events[-1] == "[DONE]") is not old
    chunks = [json.loads(event) for event in events if event != "[DONE]"]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert len(deltas) > 1
    for delta in deltas:
        assert ("tool_calls" in delta) is old and delta["role"] == "assistant"
