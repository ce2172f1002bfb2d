"""`sampling_params` of SGLang's /generate."""

from __future__ import annotations

from functools import partial
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from penstock_router.api.errors import invalid
from penstock_router.api.options import Names, Options, biases, share, temperature
from penstock_router.api.schema import ClientObject
from penstock_router.api.schema_types import (
    INT32,
    AtMost,
    Count,
    Integer,
    LogitBias,
    Penalty,
    Share,
    StopSequence,
    StopSequences,
)
from penstock_router.api.structured import AnyObject, Asked, Schema, Wanted, only
from penstock_router.api.token_rules import MAX_STOP_TOKENS, RuleWishes
from penstock_router.config import RouterConfig
from penstock_router.request import Sampling
from penstock_router.structured import grammar_from

MAX_SAMPLES = 128  # of a prompt
MAX_PATTERNS, MAX_PATTERN = 8, 512  # of `stop_regex`, and their characters
GRAMMARS = ("json_schema", "regex", "ebnf", "structural_tag")
ANY_JSON = "$$ANY$$"  # as a schema: any value

StopToken = Annotated[Integer, Field(ge=0, le=INT32)]
StopPattern = Annotated[str, Field(max_length=MAX_PATTERN)]


class SamplingParams(ClientObject):
    """`sampling_params` of a request, with SGLang's defaults."""

    PATH: ClassVar = "sampling_params."
    # Tokenizers of this server never put spaces there; no custom processor reads parameters.
    IGNORED: ClassVar = frozenset({"spaces_between_special_tokens", "custom_params"})
    UNSUPPORTED: ClassVar = {"beam_width": (1,)}

    max_new_tokens: Count | None = None  # 128, or what there is room for if that is less
    min_new_tokens: Count = 0
    n: Annotated[Integer, Field(ge=1, le=MAX_SAMPLES)] = 1
    stop: StopSequence | StopSequences = []
    stop_regex: StopPattern | Annotated[list[StopPattern], AtMost(MAX_PATTERNS)] = []
    stop_token_ids: Annotated[list[StopToken], AtMost(MAX_STOP_TOKENS)] = []
    ignore_eos: bool = False
    temperature: Annotated[float, Field(ge=0, le=100)] = 1.0
    top_p: Share = 1.0
    top_k: Annotated[Integer, Field(ge=-1, le=INT32)] = -1  # -1: off
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    frequency_penalty: Penalty = 0.0
    presence_penalty: Penalty = 0.0
    repetition_penalty: Annotated[float, Field(ge=0.01, le=2)] = 1.0
    logit_bias: LogitBias | None = None
    sampling_seed: Annotated[Integer, Field(ge=-(2**63), le=2**64 - 1)] | None = None
    json_schema: Schema | None = None
    regex: str | None = None
    ebnf: str | None = None
    structural_tag: str | AnyObject | None = None
    skip_special_tokens: bool = True
    no_stop_trim: bool = False
    stream_interval: Annotated[Integer, Field(ge=1, le=INT32)] = 1

    @property
    def stops(self) -> tuple[str, ...]:
        """The strings that end an answer."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def stop_patterns(self) -> tuple[str, ...]:
        """The expressions that end an answer."""
        given = [self.stop_regex] if isinstance(self.stop_regex, str) else self.stop_regex
        return tuple(pattern for pattern in given if pattern)

    @model_validator(mode="after")
    def _top_k_is_off_or_positive(self) -> Self:
        if self.top_k == 0:
            raise ValueError("`top_k` must be -1 or strictly positive. Given: 0")
        return self

    def _grammar(self) -> Asked | None:
        """What the answer is held to. Raises ApiError where several fields say it."""
        asked = {name: getattr(self, name) for name in GRAMMARS if getattr(self, name) is not None}
        wanted: list[Wanted] = []
        for name, value in asked.items():
            shown = True if value == ANY_JSON else value
            wanted.append((f"sampling_params.{name}", partial(grammar_from, name, shown)))
        return only(wanted)

    def options(self, config: RouterConfig, *, prompt: str, priority: int) -> Options:
        """The same in the server's terms. prompt: the field that held it. Raises ApiError."""
        most = max(16, config.max_stop_sequences)
        if len(self.stops) > most:
            raise invalid(f"`stop` supports up to {most} stop sequences. Given: {len(self.stops)}")
        return Options(
            names=Names(prompt),
            max_new_tokens=self.max_new_tokens,
            sampling=Sampling(
                temperature=temperature(self.temperature),
                top_k=max(self.top_k, 0),
                top_p=share(self.top_p),
                min_p=self.min_p,
                repetition_penalty=self.repetition_penalty,
                frequency_penalty=self.frequency_penalty,
                presence_penalty=self.presence_penalty,
                logit_bias=biases(self.logit_bias),
            ),
            seed=None if self.sampling_seed is None else self.sampling_seed % 2**64,
            sequences=self.n,
            stop=self.stops,
            keep_stop=self.no_stop_trim,
            rules=RuleWishes(
                min_tokens=self.min_new_tokens, stop_token_ids=tuple(self.stop_token_ids)
            ),
            show_special=not self.skip_special_tokens,
            ignore_eos=self.ignore_eos,
            priority=priority,
            grammar=self._grammar(),
        )
