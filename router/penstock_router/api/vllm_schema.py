"""What vLLM's clients send beside OpenAI's fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Self

from pydantic import Field, model_validator

from penstock_router.api.options import LONGEST_PROMPT
from penstock_router.api.schema_types import INT32, AtMost, Count, Integer, TokenIds
from penstock_router.api.time_limit import TimeLimited
from penstock_router.api.token_rules import (
    MAX_ALLOWED_TOKENS,
    MAX_BAD_CHARACTERS,
    MAX_BAD_WORDS,
    MAX_STOP_TOKENS,
    RuleWishes,
)
from penstock_router.limits import MAX_TOP_LOGPROBS

BadWord = Annotated[str, Field(min_length=1, max_length=MAX_BAD_CHARACTERS)]


class VllmFields(TimeLimited):
    """Of chat and plain completions."""

    stream: bool = False
    min_tokens: Count = 0
    stop_token_ids: Annotated[Sequence[int], TokenIds(MAX_STOP_TOKENS, least=0)] | None = None
    bad_words: Annotated[list[BadWord], AtMost(MAX_BAD_WORDS)] = []
    allowed_token_ids: Annotated[Sequence[int], TokenIds(MAX_ALLOWED_TOKENS)] | None = None
    skip_special_tokens: bool = True
    truncate_prompt_tokens: Annotated[Integer, Field(ge=-1, le=INT32)] | None = None
    prompt_logprobs: Annotated[Integer, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    return_token_ids: bool = False
    return_tokens_as_token_ids: bool = False
    request_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,128}$")] | None = None

    @model_validator(mode="after")
    def _prompt_logprobs_are_sent_at_once(self) -> Self:
        if self.prompt_logprobs is not None and self.stream:
            raise ValueError("`prompt_logprobs` must not be given when `stream` is true")
        return self

    def rules(self) -> RuleWishes:
        """Rules about tokens, as the client asks for them."""
        return RuleWishes(
            min_tokens=self.min_tokens,
            stop_token_ids=tuple(self.stop_token_ids or ()),
            bad_words=tuple(self.bad_words),
            allowed=self.allowed_token_ids or (),
        )

    def longest_prompt(self) -> int | None:
        """Tokens at the end of a prompt that are kept; None: all, or it is refused."""
        wanted = self.truncate_prompt_tokens
        return LONGEST_PROMPT if wanted == -1 else wanted
