"""Clients that read chat streams as TGI sent them before its 2.2, and nothing newer.

They take the line `[DONE]` for JSON, and miss `tool_calls` in a delta that has none.
"""

from __future__ import annotations

import re
from collections.abc import Set

_OLD_HUB = re.compile(r"\bhf_hub/0\.(1\d|2[0-3])\.")
# The package text_generation names itself by no more than the library that it calls with. But it
# sends every field that it knows, and OpenAI's clients do not know the first of these.
_LIBRARY = re.compile(r"python-requests/|Python/[\d.]+ aiohttp/")
_ALWAYS_SENT = frozenset({"repetition_penalty", "logit_bias", "tools", "tool_choice"})


def is_old(user_agent: str, fields: Set[str]) -> bool:
    """Whether a chat comes from one of them. fields: those that the request has, null or not."""
    if _OLD_HUB.search(user_agent):
        return True
    return _LIBRARY.match(user_agent) is not None and fields >= _ALWAYS_SENT
