"""Clients that break on what all others need, told by their User-Agent."""

from __future__ import annotations

import re
from collections.abc import Set

_OLD_HUB = re.compile(r"\bhf_hub/0\.(?:1?[0-9]|2[0-4])\.")
_AIOHTTP = re.compile(r"Python/[\d.]+ aiohttp/")
_OF_ITS_CHATS = frozenset({"repetition_penalty", "logit_bias", "tools", "tool_choice"})


def reads_sentences(user_agent: str) -> bool:
    """It wants an error's sentence where OpenAI's clients want an object.

    huggingface_hub up to 0.26 breaks on an object, and since then shows it as Python writes it.
    """
    return "hf_hub/" in user_agent


def reads_only_json(user_agent: str, sent: Set[str]) -> bool:
    """It breaks on `[DONE]`: huggingface_hub up to 0.24, and text_generation."""
    return is_text_generation(user_agent, sent) or _OLD_HUB.search(user_agent) is not None


def is_text_generation(user_agent: str, sent: Set[str]) -> bool:
    """It may be text_generation, whose types ask for `tool_calls` in every delta of a chat.

    It says only that it runs on requests; other programs that do take null for nothing. On aiohttp
    it is told by what its chats have: every field that it knows, most of them null.
    sent: the fields of the body, null or not.
    """
    if user_agent.startswith("python-requests/"):
        return True
    return _AIOHTTP.match(user_agent) is not None and sent >= _OF_ITS_CHATS
