"""Clients that break on what all others need, told by their User-Agent."""

from __future__ import annotations

import re

_HUB = re.compile(r"\bhf_hub/")
# text_generation says only that it runs on requests. Others that do read to the end of a stream.
_ONLY_JSON = re.compile(r"\bhf_hub/0\.(?:1?[0-9]|2[0-4])\.|^python-requests/")


def reads_sentences(user_agent: str) -> bool:
    """It wants an error's sentence where OpenAI's clients want an object.

    huggingface_hub up to 0.26 breaks on an object, and since then shows it as Python writes it.
    """
    return _HUB.search(user_agent) is not None


def reads_only_json(user_agent: str) -> bool:
    """It breaks on `[DONE]`: huggingface_hub up to 0.24, and text_generation."""
    return _ONLY_JSON.search(user_agent) is not None
