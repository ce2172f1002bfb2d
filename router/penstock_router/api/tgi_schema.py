"""Requests of TGI's own routes."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field, GetJsonSchemaHandler, TypeAdapter
from pydantic_core import CoreSchema

from penstock_router.api.errors import invalid
from penstock_router.api.openai_chat import ChatRequest
from penstock_router.api.options import Options, biases, share, temperature
from penstock_router.api.schema import NEUTRAL, UNSUPPORTED, ClientObject
from penstock_router.api.schema_types import (
    AtMost,
    CacheSalt,
    Count,
    Integer,
    LogitBias,
    Penalty,
    Positive,
    PositiveInt,
    Priority,
    RepetitionPenalty,
    Seconds,
    Share,
    StopSequences,
)
from penstock_router.api.structured import Asked, GrammarField
from penstock_router.api.time_limit import TimeLimited
from penstock_router.api.token_rules import RuleWishes
from penstock_router.config import RouterConfig
from penstock_router.request import Sampling

Inputs = Annotated[str, Field(min_length=1)]


class GenerateParameters(ClientObject):
    """`parameters` of a request."""

    PATH: ClassVar = "parameters."
    UNSUPPORTED: ClassVar = {k: v for k, v in UNSUPPORTED.items() if k != "grammar"}

    best_of: Count | None = None
    temperature: Positive | None = None
    repetition_penalty: RepetitionPenalty | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    top_k: PositiveInt | None = None
    top_p: Share | None = None
    typical_p: Share | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    do_sample: bool = False
    max_new_tokens: PositiveInt | None = None
    max_time: Seconds | None = None
    return_full_text: bool | None = None
    stop: StopSequences = []
    stop_sequences: StopSequences = []  # the same, as older clients call it
    truncate: Count | None = None
    details: bool = False
    decoder_input_details: bool = False
    seed: Annotated[Integer, Field(ge=0, le=2**64 - 1)] | None = None
    top_n_tokens: Count | None = None
    ignore_eos: bool = False
    ignore_eos_token: bool = False  # the same, as TGI's shards call it
    logit_bias: LogitBias | None = None
    watermark: bool = False
    priority: Priority | None = None
    grammar: GrammarField | None = None
    cache_salt: CacheSalt | None = None

    @property
    def samples(self) -> bool:
        """TGI samples when told to, or when a parameter makes sense only then."""
        return (
            self.do_sample
            or self.temperature not in (None, 1.0)
            or self.top_k is not None
            or (self.top_p or 1.0) < 1.0
            or (self.typical_p or 1.0) < 1.0
            or (self.min_p or 0.0) > 0.0
        )

    def options(self, config: RouterConfig, *, stream: bool, priority: int) -> Options:
        """The same in the server's terms. priority: that of the header, if it has one."""
        sequences = self._sequences(config, stream)
        if stream and self.decoder_input_details:
            raise invalid("`decoder_input_details` == true is not supported when streaming tokens")
        stop = (*self.stop, *self.stop_sequences)
        if len(stop) > config.max_stop_sequences:
            raise invalid(
                f"`stop` supports up to {config.max_stop_sequences} stop sequences. "
                f"Given: {len(stop)}"
            )
        top_n = self._top_n(config)
        wants_logprobs = stream or self.details or self.decoder_input_details or sequences > 1
        return Options(
            max_new_tokens=self.max_new_tokens,
            sampling=self._sampling(top_n if wants_logprobs else None),
            seed=self.seed,
            sequences=sequences,
            stop=stop,
            keep_stop=True,
            rules=RuleWishes(watermark=self.watermark),
            ignore_eos=self.ignore_eos or self.ignore_eos_token,
            max_time=self.max_time,
            truncate=self.truncate,
            prompt_logprobs=self.decoder_input_details,
            priority=priority if self.priority is None else self.priority,
            grammar=None if self.grammar is None else Asked("grammar", self.grammar.make),
            cache_salt=self.cache_salt,
        )

    def _sequences(self, config: RouterConfig, stream: bool) -> int:
        if self.best_of is None or self.best_of == 1:
            return 1
        if stream:
            raise invalid("`best_of` != 1 is not supported when streaming tokens")
        if not 0 < self.best_of <= config.max_best_of:
            raise invalid(
                f"`best_of` must be > 0 and <= {config.max_best_of}. Given: {self.best_of}"
            )
        if not self.samples:
            raise invalid("you must use sampling when `best_of` is > 1")
        if self.seed is not None:
            raise invalid("`seed` must not be set when `best_of` > 1")
        return self.best_of

    def _top_n(self, config: RouterConfig) -> int:
        top_n = self.top_n_tokens or 0
        if top_n > config.max_top_n_tokens:
            raise invalid(
                f"`top_n_tokens` must be >= 0 and <= {config.max_top_n_tokens}. Given: {top_n}"
            )
        return top_n

    def _sampling(self, top_n: int | None) -> Sampling:
        """top_n: None when no log-probabilities are wanted."""
        return Sampling(
            temperature=temperature(self.temperature or 1.0) if self.samples else 0.0,
            top_k=self.top_k or 0,
            top_p=share(self.top_p),
            typical_p=share(self.typical_p),
            min_p=self.min_p or 0.0,
            repetition_penalty=self.repetition_penalty or 1.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            presence_penalty=self.presence_penalty or 0.0,
            logit_bias=biases(self.logit_bias),
            logprobs=top_n is not None,
            top_n=top_n or 0,
        )


class GenerateRequest(TimeLimited):
    """Body of /generate, /generate_stream, / and /tokenize."""

    IGNORED: ClassVar = frozenset({"model", "user", "options"})

    inputs: Inputs
    # TGI samples when `parameters` are absent, and does not when they are empty.
    parameters: GenerateParameters = GenerateParameters(do_sample=True)
    stream: bool = False
    add_special_tokens: bool = True


class _ByItsOwnSchema:
    """An instance is any object until the handler reads it; the document says what it must be."""

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return handler(TypeAdapter(GenerateRequest | ChatRequest).core_schema)


Instance = Annotated[dict[str, Any], _ByItsOwnSchema()]


class VertexRequest(TimeLimited):
    """Body of /vertex: several requests, each as for /generate or /v1/chat/completions."""

    UNSUPPORTED: ClassVar = {"parameters": NEUTRAL}

    instances: Annotated[list[Instance], Field(min_length=1), AtMost(1024)]
