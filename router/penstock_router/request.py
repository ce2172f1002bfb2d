"""What the API hands to the engine, and what the engine says back."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from penstock_router.grammar import Grammar
from penstock_router.token_rules import TokenRules


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen. The neutral value of each field switches it off."""

    temperature: float = 0.0  # 0: greedy
    top_k: int = 0
    top_p: float = 1.0
    typical_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    seed: int = 0
    logit_bias: tuple[tuple[int, float], ...] = ()
    logprobs: bool = False
    top_n: int = 0
    given: tuple[int, ...] = ()  # tokens whose log-probabilities are wanted at each place, too
    rules: TokenRules | None = None


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One sequence to generate, validated by the API; a shard refuses what it cannot compute."""

    prompt: Sequence[int]  # token ids, at least one
    max_new_tokens: int  # 0: only the prompt; len(prompt) + max_new_tokens <= max_total_tokens
    sampling: Sampling = field(default_factory=Sampling)
    ignore_eos: bool = False
    prompt_logprobs: bool = False
    prompt_logprobs_start: int = 0  # only those of the tokens behind this place are wanted
    prompt_top_n: int = 0  # with prompt_logprobs: so many most likely tokens at each place, too
    max_time: float | None = None  # seconds from submission until it ends where it is
    priority: int = 0  # larger is sooner
    name: str = ""  # by which a client may abort it
    grammar: Grammar | None = None  # what the generated text is held to
    client: str = ""  # who asks, as far as anybody knows
    cache_salt: bytes = b""  # cached prefixes are shared among requests with the same


class FinishReason(enum.Enum):
    """Why a sequence ended, under TGI's names."""

    LENGTH = "length"
    EOS = "eos_token"
    STOP = "stop_sequence"


@dataclass(frozen=True, slots=True)
class Finish:
    """The end of a sequence. Times are seconds since submission."""

    reason: FinishReason
    generated_tokens: int
    cached_tokens: int  # prompt tokens whose KV came from the prefix cache
    queue_seconds: float  # until its first chunk was planned
    first_token_seconds: float
    total_seconds: float


class EngineError(Exception):
    """A request that was accepted could not be served."""


class GenerationFailed(EngineError):
    """A shard failed while it ran the request, or the group of shards is gone."""


class Refused(GenerationFailed):
    """The shards cannot compute this request; they go on with the others."""


class Aborted(EngineError):
    """A client had the request ended, by its name."""


class BadGrammar(EngineError):
    """The shards cannot compile a request's grammar; the message says why."""


class GrammarsBusy(EngineError):
    """There is no room for another grammar now."""


class Draining(EngineError):
    """The server is about to end and takes nothing more."""


class ShuttingDown(EngineError):
    """The server's grace period ended before the request did."""


# (token id, log-probability), most likely first, and behind them those of Sampling.given
TopTokens = Sequence[tuple[int, float]]


class Listener(Protocol):
    """Receives what one sequence generates. Called on the event loop; must not block or raise.

    Order: `prompt` once if prompt_logprobs was asked, `token` for every generated token (the EOS
    token included), then exactly one of `finish` and `fail`; nothing after a `cancel`.
    """

    def prompt(
        self, logprobs: Sequence[float | None], tops: Sequence[TopTokens], ranks: Sequence[int]
    ) -> None:
        """Log-probability of each prompt token, and the most likely tokens in its place.

        None and an empty list up to the place where they begin; no lists at all unless prompt_top_n
        or given tokens were asked. ranks: 1 + the number of tokens that are more likely, 0 up to
        there.
        """

    def token(self, token_id: int, logprob: float, top: TopTokens, rank: int) -> bool:
        """One generated token. logprob is NaN unless the request asked for log-probabilities.

        rank: 1 + the number of tokens that were more likely; 0 where logprob is NaN.

        Returns True when the text has reached a stop sequence: the sequence ends here.
        """

    def finish(self, finish: Finish) -> None:
        """The sequence ended as its request asked."""

    def fail(self, error: EngineError) -> None:
        """The sequence ended before it was finished."""
