"""Conversations that do not fit lose their beginning, where the client asks for that.

What stays are the system messages in front and the turns from some message of the user on: so no
result stands without its call, and templates that want a user's message first get one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import overload

from penstock_router.api.errors import ApiError, Kind
from penstock_router.api.options import CHECKED_TOKENS, Options
from penstock_router.api.prepare import prepare, text_errors
from penstock_router.api.request_context import RequestContext
from penstock_router.request import GenerationRequest
from penstock_router.text import Conversation, TextModel
from penstock_router.text.library import TooManyTokens

SYSTEM = ("system", "developer")


async def prepare_shortened(
    context: RequestContext, conversation: Conversation, options: Options
) -> list[list[GenerationRequest]]:
    """As `prepare`, of as much of the conversation as fits. Raises ApiError where not even the last
    turn does."""
    try:
        return await prepare(context, [conversation], options)
    except ApiError as error:
        if error.kind is not Kind.CONTEXT:
            raise
    limits = context.service.engine.limits
    new_tokens = min(options.max_new_tokens or 1, CHECKED_TOKENS)
    most = min(limits.max_input_tokens, limits.max_total_tokens - new_tokens)
    shorter = await _longest(context.service.text, Shortened(conversation), most)
    return await prepare(context, [shorter or conversation], options)


class Shortened(Sequence[Conversation]):
    """The same without its first turns, more of them each time. Each is made when it is looked at:
    there may be thousands, of which a search looks at twelve."""

    def __init__(self, conversation: Conversation) -> None:
        messages = conversation.messages
        first = next((i for i, m in enumerate(messages) if m["role"] not in SYSTEM), len(messages))
        self._conversation, self._first = conversation, first
        self._starts = [i for i, m in enumerate(messages) if i > first and m["role"] == "user"]

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, place: int) -> Conversation: ...

    @overload
    def __getitem__(self, place: slice) -> list[Conversation]: ...

    def __getitem__(self, place: int | slice) -> Conversation | list[Conversation]:
        if isinstance(place, slice):
            return [self[one] for one in range(len(self))[place]]
        messages, start = self._conversation.messages, self._starts[place]
        kept = [*messages[: self._first], *messages[start:]]
        return dataclasses.replace(self._conversation, messages=kept)


async def _longest(
    text: TextModel, candidates: Sequence[Conversation], most: int
) -> Conversation | None:
    """The first that has no more than so many tokens; each is shorter than the one before. Raises
    ApiError."""
    low, high = 0, len(candidates)
    while low < high:
        middle = (low + high) // 2
        if await _fits(text, candidates[middle], most):
            high = middle
        else:
            low = middle + 1
    return candidates[low] if low < len(candidates) else None


async def _fits(text: TextModel, conversation: Conversation, most: int) -> bool:
    with text_errors():
        try:
            return len((await text.render(conversation, limit=most)).ids) <= most
        except TooManyTokens:
            return False
