"""Rules about tokens as clients ask for them: by ids, and by words that become ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from penstock_router.api.errors import invalid
from penstock_router.config import RouterConfig
from penstock_router.limits import ServerLimits
from penstock_router.text import TextModel
from penstock_router.text.tokenizer import Tokenizer
from penstock_router.token_rules import MAX_RUN, TokenRules

MAX_BAD_WORDS = 256
MAX_BAD_CHARACTERS = 128
MAX_STOP_TOKENS = 1024
MAX_ALLOWED_TOKENS = 32_768  # 4 bytes each on their way to a shard, which makes a mask of them


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleWishes:
    """What a client may ask for; the neutral value of each field asks for nothing."""

    min_tokens: int = 0  # before an end or one of `stop_token_ids` may come
    stop_token_ids: tuple[int, ...] = ()
    bad_words: tuple[str, ...] = ()
    allowed: Sequence[int] = ()
    watermark: bool = False

    @property
    def any(self) -> bool:
        """Whether the choice of tokens has rules. A stop token alone is none."""
        return bool(self.min_tokens or self.bad_words or len(self.allowed) or self.watermark)

    def check(self, limits: ServerLimits, max_new_tokens: int | None) -> None:
        """What the schema cannot know. Raises ApiError."""
        named = {"stop_token_ids": self.stop_token_ids, "allowed_token_ids": self.allowed}
        for name, tokens in named.items():
            if len(tokens) and (wrong := int(np.max(tokens))) >= limits.vocab_size:
                raise invalid(
                    f"`{name}` must hold token ids >= 0 and < {limits.vocab_size}. Given: {wrong}"
                )
        if max_new_tokens is not None and self.min_tokens > max_new_tokens:
            raise invalid(
                f"`min_tokens` must be at most the number of new tokens, {max_new_tokens}. "
                f"Given: {self.min_tokens}"
            )


async def token_rules(
    wishes: RuleWishes, text: TextModel, config: RouterConfig, ignore_eos: bool
) -> TokenRules | None:
    """The rules of a sequence; None: no token is barred or favoured. Raises ApiError."""
    if not wishes.any:
        return None
    late: frozenset[int] = frozenset()
    if wishes.min_tokens:
        ends = frozenset() if ignore_eos else text.eos_ids
        late = ends.union(wishes.stop_token_ids)
    if late and len(wishes.allowed) and late.issuperset(wishes.allowed):
        raise invalid("`allowed_token_ids` must hold a token that `min_tokens` does not bar")
    banned: tuple[tuple[int, ...], ...] = ()
    if words := wishes.bad_words:
        banned = await text.run(lambda: _runs(words, text.tokenizer))
    return TokenRules(
        allowed=wishes.allowed,
        late=tuple(sorted(late)),
        min_tokens=wishes.min_tokens if late else 0,
        banned=banned,
        green_share=config.watermark_gamma if wishes.watermark else 0.0,
        green_bias=config.watermark_delta if wishes.watermark else 0.0,
    )


def _runs(words: Sequence[str], tokenizer: Tokenizer) -> tuple[tuple[int, ...], ...]:
    """The tokens of each word, at the beginning of a text and behind a space.

    As transformers' NoBadWordsLogitsProcessor and vLLM have it: a word that is spelled in other
    tokens than the tokenizer's own is not known for it. Raises ApiError.
    """
    runs: dict[tuple[int, ...], None] = {}
    for word in words:
        for spelled in (word, " " + word.lstrip()):
            run = tuple(tokenizer.encode(spelled, False))
            if not 0 < len(run) <= MAX_RUN:
                raise invalid(
                    f"each of `bad_words` must come to 1 to {MAX_RUN} tokens. Given: one of "
                    f"{len(run)}"
                )
            runs[run] = None
    return tuple(runs)
