"""How prompts are continued: vLLM's parameters, with its defaults.

Values are checked by the router, as those of HTTP requests are; here stands only what it never
sees. docs/offline.md says how each field is honoured.
"""

from __future__ import annotations

import copy
import enum
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

LEAST_TEMPERATURE = 0.01  # a lower one is raised to it, as vLLM does
GREEDY = 1e-5  # below it the most likely token is taken
BIAS = 100.0  # most that a token's logit is moved by


class RequestOutputKind(enum.Enum):
    """What each output of an AsyncLLM's stream holds."""

    CUMULATIVE = 0  # all that there is so far
    DELTA = 1  # what came since the output before
    FINAL_ONLY = 2  # everything, at the end


@dataclass(kw_only=True)
class StructuredOutputsParams:
    """What the text is held to: exactly one of the first six."""

    json: str | dict[str, Any] | type | None = None  # a schema, or a pydantic model
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None  # GBNF or Lark
    json_object: bool | None = None
    structural_tag: str | dict[str, Any] | None = None
    disable_any_whitespace: bool = False
    disable_additional_properties: bool = False
    whitespace_pattern: str | None = None

    def __post_init__(self) -> None:
        """Raises ValueError unless one thing is asked for."""
        kinds = ("json", "regex", "choice", "grammar", "json_object", "structural_tag")
        given = [name for name in kinds if getattr(self, name) not in (None, False)]
        if len(given) != 1:
            names = ", ".join(kinds)
            raise ValueError(f"exactly one of {names} must be given. Given: {given or 'none'}")

    def body(self) -> dict[str, Any]:
        """The field `structured_outputs` of a request."""
        names = [one.name for one in fields(StructuredOutputsParams)]
        shown = {name: getattr(self, name) for name in names}
        if isinstance(self.json, type):
            shown["json"] = self.json.model_json_schema()  # type: ignore[attr-defined]
        return {name: value for name, value in shown.items() if value not in (None, False)}


@dataclass(kw_only=True)
class GuidedDecodingParams(StructuredOutputsParams):
    """What vLLM called it until 0.11; which engine finds the tokens has no effect here."""

    backend: str | None = None
    disable_fallback: bool = False

    @classmethod
    def from_optional(cls, **values: Any) -> Self | None:
        """None where nothing is asked for."""
        given = {name: value for name, value in values.items() if value is not None}
        return cls(**given) if given else None


@dataclass(kw_only=True)
class SamplingParams:
    """See the module. Raises ValueError for what no router need be asked about."""

    n: int = 1
    best_of: int | None = None  # so many are drawn, and the n with the highest probability returned
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1  # -1 and 0: off
    min_p: float = 0.0
    seed: int | None = None
    stop: str | Sequence[str] | None = None
    stop_token_ids: Sequence[int] | None = None
    bad_words: Sequence[str] | None = None
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    max_tokens: int | None = 16  # None: what there is room for
    min_tokens: int = 0
    logprobs: int | None = None  # so many most likely tokens in each place; 0: the chosen one
    prompt_logprobs: int | None = None
    logprob_token_ids: Sequence[int] | None = None  # also the log-probabilities of these
    flat_logprobs: bool = False
    detokenize: bool = True
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    output_kind: RequestOutputKind = RequestOutputKind.CUMULATIVE
    structured_outputs: StructuredOutputsParams | None = None
    guided_decoding: StructuredOutputsParams | None = None  # the older name
    logit_bias: dict[int, float] | dict[str, float] | None = None
    allowed_token_ids: Sequence[int] | None = None
    truncate_prompt_tokens: int | None = None
    skip_reading_prefix_cache: bool | None = None
    skip_clone: bool = False
    extra_args: dict[str, Any] | None = None
    thinking_token_budget: int | None = None
    repetition_detection: Any = None
    routed_experts_prompt_start: int = 0
    prompt_logprob_token_ids: Any = None
    prompt_logprob_start: int | None = None
    trace_decode_token_ids: Sequence[int] | None = None
    watermarking: bool | None = None
    stream_interval: int | None = None
    output_text_buffer_length: int = 0

    _UNBUILDABLE = {  # refused unless they ask for nothing
        "extra_args": "no plug-in of this server reads them",
        "thinking_token_budget": "reasoning is not cut; max_tokens bounds the whole answer",
        "repetition_detection": "nothing looks for repetitions; repetition_penalty makes them rare",
        "routed_experts_prompt_start": "experts are not reported",
        "prompt_logprob_token_ids": "prompt_logprobs gives the most likely tokens in each place, "
        "LLM.loglikelihood those of a continuation",
        "prompt_logprob_start": "prompt_logprobs are those of the whole prompt",
        "trace_decode_token_ids": "answers are the model's; LLM.loglikelihood scores given ones",
    }

    def __post_init__(self) -> None:
        for name, reason in self._UNBUILDABLE.items():
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int | dict | list) or value):
                raise ValueError(f"{name} is not supported: {reason}")
        if self.guided_decoding is not None:
            if self.structured_outputs is not None:
                raise ValueError("guided_decoding and structured_outputs are the same: give one")
            self.structured_outputs, self.guided_decoding = self.guided_decoding, None
        if self.seed == -1:
            self.seed = None
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{field.name} must be a finite number. Given: {value}")
        if GREEDY <= self.temperature < LEAST_TEMPERATURE:
            warnings.warn(
                f"temperature {self.temperature:g} is raised to {LEAST_TEMPERATURE}", stacklevel=3
            )
            self.temperature = LEAST_TEMPERATURE
        if self.best_of is not None and self.best_of < self.n:
            raise ValueError(f"best_of must be at least n, {self.n}. Given: {self.best_of}")
        if 0 <= self.temperature < GREEDY and self.candidates > 1:
            name = "n" if self.n > 1 else "best_of"
            raise ValueError(f"{name} must be 1 at temperature 0. Given: {self.candidates}")
        if self.allowed_token_ids is not None and not len(self.allowed_token_ids):
            raise ValueError("allowed_token_ids must hold at least one token. Given: none")
        if self.stop and not self.detokenize:
            raise ValueError("stop needs detokenize: it is looked for in the text")
        if self.logprobs == -1 or self.prompt_logprobs == -1:
            raise ValueError(
                "log-probabilities of the whole vocabulary (-1) are not supported; "
                "LLM(max_logprobs=1000) allows up to 1,000 tokens in each place"
            )

    @property
    def candidates(self) -> int:
        """Sequences that are drawn for each prompt."""
        return self.n if self.best_of is None else self.best_of

    @property
    def greedy(self) -> bool:
        return self.temperature < GREEDY

    def clone(self) -> Self:
        """A copy that may be changed."""
        return copy.deepcopy(self)

    @classmethod
    def from_optional(cls, **values: Any) -> Self:
        """The same, with defaults for what is None."""
        return cls(**{name: value for name, value in values.items() if value is not None})

    def body(self) -> dict[str, Any]:
        """The fields of a request, those of /v1/completions; without neutral ones."""
        shown = {name: getattr(self, name) for name in _SENT}
        for name in _LISTS:
            if shown[name] is not None and not isinstance(shown[name], str):
                shown[name] = list(shown[name])
        shown["n"] = self.candidates
        if self.candidates > self.n and self.logprobs is None:
            shown["logprobs"] = 0  # the best are found by them
        if self.greedy:
            shown |= {"top_p": 1.0, "top_k": -1, "min_p": 0.0}
        if self.logit_bias:
            biases = self.logit_bias.items()
            shown["logit_bias"] = {str(i): min(max(v, -BIAS), BIAS) for i, v in biases}
        if self.structured_outputs is not None:
            shown["structured_outputs"] = self.structured_outputs.body()
        return {name: value for name, value in shown.items() if value is not None and value != []}


_LISTS = ("stop", "stop_token_ids", "bad_words", "logprob_token_ids", "allowed_token_ids")
# what the router reads under the same names
_SENT = (
    *_LISTS,
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "include_stop_str_in_output",
    "ignore_eos",
    "max_tokens",
    "min_tokens",
    "logprobs",
    "prompt_logprobs",
    "detokenize",
    "skip_special_tokens",
    "truncate_prompt_tokens",
)


@dataclass(kw_only=True)
class BeamSearchParams:
    """How a beam search goes."""

    beam_width: int
    max_tokens: int
    ignore_eos: bool = False
    temperature: float = 0.0
    length_penalty: float = 1.0
    include_stop_str_in_output: bool = False
    structured_outputs: StructuredOutputsParams | None = None
    skip_special_tokens: bool = True
    watermarking: bool | None = None  # no effect: texts have no watermark
    allowed_token_ids: Sequence[int] | None = None

    def __post_init__(self) -> None:
        for name in ("beam_width", "max_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1. Given: {getattr(self, name)}")
        for name in ("structured_outputs", "allowed_token_ids"):
            if getattr(self, name) is not None:
                raise ValueError(f"{name} are not supported in a beam search")
