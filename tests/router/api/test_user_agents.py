"""Which clients are taken for those that cannot read what all others need."""

from __future__ import annotations

from collections.abc import Set

import pytest

from penstock_router.api.user_agents import is_text_generation, reads_only_json

HUB = "unknown/None; hf_hub/{}; python/3.11.7"
SENT = ("model", "messages", "repetition_penalty", "logit_bias", "tools", "tool_choice")
OF_TGI = frozenset(SENT)


@pytest.mark.parametrize(
    ("agent", "sent", "only_json", "text_generation"),
    [
        (HUB.format("0.23.5"), frozenset(), True, False),
        (HUB.format("1.33.0"), OF_TGI, False, False),
        ("python-requests/2.34.2", frozenset(), True, True),
        ("Python/3.11 aiohttp/3.14.5", OF_TGI, True, True),
        ("Python/3.11 aiohttp/3.14.5", OF_TGI - {"repetition_penalty"}, False, False),
        ("OpenAI/Python 3.52.0", OF_TGI, False, False),
        ("", frozenset(), False, False),
    ],
)
def test_who_reads_what(agent: str, sent: Set[str], only_json: bool, text_generation: bool) -> None:
    assert reads_only_json(agent, sent) is only_json
    assert is_text_generation(agent, sent) is text_generation
