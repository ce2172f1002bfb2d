"""What the parameters of every route come down to."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from penstock_router.api.errors import ApiError, Kind, invalid
from penstock_router.api.schema_types import StopSequence
from penstock_router.api.structured import Asked
from penstock_router.api.token_rules import RuleWishes
from penstock_router.limits import ServerLimits
from penstock_router.request import GenerationRequest, Sampling
from penstock_router.tools.plan import ReplyPlan

_SEEDS = 2**64

# TGI generates in slices of 1024 tokens and checks only the first one, so its clients ask for any
# number of tokens and get what there is room for.
CHECKED_TOKENS = 1024
# Of all sequences of a request: ten milliseconds of the event loop, and as much of a step.
MOST_TOGETHER = {"bad_words": 2048, "logit_bias": 32_768, "allowed_token_ids": 524_288}
LONGEST_PROMPT = -1  # as `truncate`: what a prompt may have


@dataclass(frozen=True, slots=True)
class Names:
    """What errors call the fields that a client sent."""

    prompt: str = "inputs"
    new_tokens: str = "max_new_tokens"
    openai: bool = False  # errors also have the words that gateways in front of OpenAI look for


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to continue a prompt; as a client asked, in the server's terms."""

    names: Names = Names()
    max_new_tokens: int | None = None  # None: what there is room for
    sampling: Sampling = field(default_factory=Sampling)  # its seed is not yet that of a sequence
    seed: int | None = None
    sequences: int = 1
    stop: tuple[StopSequence, ...] = ()
    keep_stop: bool = False  # the stop sequence is part of the text, as TGI has it
    rules: RuleWishes = RuleWishes()
    show_special: bool = False  # special tokens are part of the text, by their names
    ignore_eos: bool = False
    truncate: int | None = None
    prompt_logprobs: bool = False
    prompt_top_n: int = 0  # most likely tokens in place of each of the prompt
    max_time: float | None = None  # seconds until the answer ends where it is
    priority: int = 0
    reply: ReplyPlan | None = None  # how the answer is read; None: all of it is text
    grammar: Asked | None = None
    cache_salt: str | None = None  # narrows whom cached prefixes are shared with

    @property
    def samples(self) -> bool:
        """Whether chance plays a part."""
        return self.sampling.temperature > 0

    @property
    def has_token_ends(self) -> bool:
        """Tokens decide what is text, and where it ends; see `ruled_output`."""
        return self.show_special or bool(self.rules.stop_token_ids or self.rules.min_tokens)

    def check(self, limits: ServerLimits) -> None:
        """What the schema cannot know. Raises ApiError."""
        self.rules.check(limits, self.max_new_tokens)
        if (
            self.truncate not in (None, LONGEST_PROMPT)
            and not 0 < self.truncate <= limits.max_input_tokens
        ):
            raise invalid(
                "`truncate` must be strictly positive and less than "
                f"{limits.max_input_tokens}. Given: {self.truncate}"
            )
        for token, _ in self.sampling.logit_bias:
            check_token(token, limits, "logit_bias")

    def check_together(self, sequences: int) -> None:
        """What each of so many sequences brings along, on the way to the shards and in them. Raises
        ApiError where it is too much together."""
        held = {
            "bad_words": len(self.rules.bad_words),
            "logit_bias": len(self.sampling.logit_bias),
            "allowed_token_ids": len(self.rules.allowed),
        }
        for name, count in held.items():
            if count * sequences > MOST_TOGETHER[name]:
                raise invalid(
                    f"`{name}` of all sequences of a request must come to at most "
                    f"{MOST_TOGETHER[name]}. Given: {count} for each of {sequences}"
                )

    def requests(
        self, prompt: Sequence[int], limits: ServerLimits, salt: bytes = b"", client: str = ""
    ) -> list[GenerationRequest]:
        """One request for each sequence of a prompt. Raises ApiError for lengths beyond limits.

        salt: of the prefix cache, `cache_salt` taken into it. client: who asks.
        """
        if self.truncate is not None:
            most = limits.max_input_tokens if self.truncate == LONGEST_PROMPT else self.truncate
            prompt = prompt[-most:]
        max_new_tokens = self._room(len(prompt), limits)
        return [
            GenerationRequest(
                prompt=prompt,
                max_new_tokens=max_new_tokens,
                sampling=dataclasses.replace(self.sampling, seed=seed),
                ignore_eos=self.ignore_eos,
                prompt_logprobs=self.prompt_logprobs,
                prompt_top_n=self.prompt_top_n,
                max_time=self.max_time,
                priority=self.priority,
                cache_salt=salt,
                client=client,
            )
            for seed in self._seeds()
        ]

    def _room(self, length: int, limits: ServerLimits) -> int:
        """How many tokens may follow a prompt of `length` tokens."""
        prompt, wanted = self.names.prompt, self.max_new_tokens
        if length == 0:
            raise invalid(f"`{prompt}` cannot be empty")
        if length > limits.max_input_tokens:
            raise self.too_many(str(length), limits)
        room = limits.max_total_tokens - length
        if wanted is not None and min(wanted, CHECKED_TOKENS) > room:
            new = self.names.new_tokens
            raise self._too_long(
                f"`{prompt}` tokens + `{new}` must be <= {limits.max_total_tokens}. "
                f"Given: {length} `{prompt}` tokens and {wanted} `{new}`",
                "--max-total-tokens",
                limits,
            )
        return room if wanted is None else min(wanted, room)

    def too_many(self, given: str, limits: ServerLimits) -> ApiError:
        """The prompt has more tokens than one may have."""
        rule = f"`{self.names.prompt}` must have less than {limits.max_input_tokens} tokens"
        return self._too_long(f"{rule}. Given: {given}", "--max-input-tokens", limits)

    def _too_long(self, sentence: str, option: str, limits: ServerLimits) -> ApiError:
        if self.names.openai:
            sentence += (
                f". This model's maximum context length is {limits.max_total_tokens} tokens; "
                f"`{option}` sets the limit"
            )
        return ApiError(Kind.CONTEXT, sentence)

    def _seeds(self) -> list[int]:
        if self.seed is None:
            return [secrets.randbits(64) for _ in range(self.sequences)]
        return [(self.seed + i) % _SEEDS for i in range(self.sequences)]


def check_token(token: int, limits: ServerLimits, field_name: str) -> None:
    """Raises ApiError for a token id that the model does not have."""
    if not 0 <= token < limits.vocab_size:
        raise invalid(
            f"`{field_name}` must hold token ids >= 0 and < {limits.vocab_size}. Given: {token}"
        )


def biases(logit_bias: Mapping[str, float] | None) -> tuple[tuple[int, float], ...]:
    """OpenAI's map, whose keys are token ids as strings."""
    return tuple((int(token), bias) for token, bias in (logit_bias or {}).items())


def temperature(value: float) -> float:
    """Below 1e-5 the most likely token is certain, and logits divided by it are not finite."""
    return value if value >= 1e-5 else 0.0


def share(value: float | None) -> float:
    """A share of probability that float32 still tells from nothing; 1 switches it off."""
    return 1.0 if value is None else max(value, 1e-6)
