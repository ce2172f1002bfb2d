"""What requests of OpenAI's chat and plain completions have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from penstock_router.api.errors import invalid
from penstock_router.api.options import Names, Options, biases, share, temperature
from penstock_router.api.schema import ClientObject
from penstock_router.api.schema_types import (
    CacheSalt,
    Integer,
    LogitBias,
    Penalty,
    PositiveInt,
    Priority,
    RepetitionPenalty,
    Share,
    StopSequence,
    StopSequences,
)
from penstock_router.api.structured import Structured
from penstock_router.api.vllm_schema import VllmFields
from penstock_router.config import RouterConfig
from penstock_router.request import Sampling

# What clients and gateways send about themselves, or about where the answer is kept.
HARMLESS = frozenset(
    {
        "user",
        "metadata",
        "store",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "length_penalty",  # of beams
        "spaces_between_special_tokens",  # fast tokenizers put none there
    }
)
# Limits of OpenAI's API, whatever those of TGI's are set to. What is asked for at once must also
# fit the permits.
MAX_CHOICES = 128
MAX_STOP_SEQUENCES = 16


class StreamOptions(ClientObject):
    """`stream_options` of a request."""

    PATH: ClassVar = "stream_options."
    IGNORED: ClassVar = frozenset({"include_obfuscation"})

    include_usage: bool = False
    continuous_usage_stats: bool = False  # vLLM's: with include_usage, in every chunk


class OpenAIRequest(VllmFields, Structured):
    """What chat and plain completions have in common."""

    model: Annotated[str, Field(max_length=1024)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    repetition_penalty: RepetitionPenalty | None = None
    logit_bias: LogitBias | None = None
    max_tokens: PositiveInt | None = None
    n: Annotated[Integer, Field(ge=1, le=MAX_CHOICES)] = 1
    seed: Annotated[Integer, Field(ge=-(2**63), le=2**64 - 1)] | None = None
    stop: StopSequence | StopSequences | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Share | None = None
    # Beyond OpenAI's
    top_k: Annotated[Integer, Field(ge=-1, le=2**31 - 1)] | None = None  # -1 and 0: off
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    typical_p: Share | None = None
    ignore_eos: bool = False
    include_stop_str_in_output: bool = False
    priority: Priority | None = None
    cache_salt: CacheSalt | None = None

    @model_validator(mode="after")
    def _stream_options_need_a_stream(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("`stream_options` is only allowed when `stream` is true")
        return self

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def usage_in_chunks(self) -> bool:
        """Every chunk says what was used until then."""
        options = self.stream_options
        return self.include_usage and options is not None and options.continuous_usage_stats

    @property
    def top_n(self) -> int | None:
        """Most likely tokens asked for; None when no log-probabilities are wanted at all."""
        raise NotImplementedError

    @property
    def new_tokens(self) -> int | None:
        return self.max_tokens

    @property
    def stops(self) -> tuple[str, ...]:
        """All stop sequences."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def names(self) -> Names:
        """What errors call the prompt and the number of tokens."""
        raise NotImplementedError

    def completed(self, defaults: Mapping[str, float]) -> Self:
        """The same, with defaults for the fields that it does not give or gives as null."""
        missing = {name: value for name, value in defaults.items() if getattr(self, name) is None}
        return self.model_copy(update=missing) if missing else self

    def options(self, config: RouterConfig, *, priority: int) -> Options:
        """The same in the server's terms. priority: that of the header, if it has one."""
        stop, most = self.stops, max(MAX_STOP_SEQUENCES, config.max_stop_sequences)
        if len(stop) > most:
            raise invalid(
                f"`stop` supports up to {most} stop sequences. Given: {len(stop)}. "
                "`--max-stop-sequences` raises the limit"
            )
        return Options(
            names=self.names,
            max_new_tokens=self.new_tokens,
            sampling=self._sampling(),
            seed=self.seed,
            sequences=self.n,
            stop=stop,
            keep_stop=self.include_stop_str_in_output,
            rules=self.rules(),
            show_special=not self.skip_special_tokens,
            ignore_eos=self.ignore_eos,
            truncate=self.longest_prompt(),
            prompt_logprobs=self.prompt_logprobs is not None,
            prompt_top_n=self.prompt_logprobs or 0,
            priority=priority if self.priority is None else self.priority,
            grammar=self.grammar(),
            cache_salt=self.cache_salt,
        )

    def _sampling(self) -> Sampling:
        return Sampling(
            temperature=temperature(1.0 if self.temperature is None else self.temperature),
            top_k=max(self.top_k or 0, 0),
            top_p=share(self.top_p),
            typical_p=share(self.typical_p),
            min_p=self.min_p or 0.0,
            repetition_penalty=self.repetition_penalty or 1.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            presence_penalty=self.presence_penalty or 0.0,
            logit_bias=biases(self.logit_bias),
            logprobs=self.top_n is not None,
            top_n=self.top_n or 0,
        )
