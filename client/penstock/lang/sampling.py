"""How text is generated: the parameters of a run, which each `gen` may override."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """SGLang's names and defaults."""

    max_new_tokens: int = 128
    min_new_tokens: int = 0
    n: int = 1
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    stop_regex: tuple[str, ...] = ()
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    ignore_eos: bool = False
    seed: int | None = None
    return_logprob: bool | None = None
    logprob_start_len: int | None = None
    top_logprobs_num: int | None = None
    return_text_in_logprobs: bool | None = None
    # What the text is held to: at most one has a value.
    regex: str | None = None
    json_schema: Mapping[str, Any] | str | bool | None = None
    grammar: str | None = None
    # OpenAI's shape.
    tools: tuple[Mapping[str, Any], ...] = ()
    tool_choice: str | Mapping[str, Any] | None = None
    separate_reasoning: bool = False

    def changed(self, overrides: Mapping[str, Any]) -> Sampling:
        """With other values."""
        return dataclasses.replace(self, **overrides) if overrides else self

    def given(self, *names: str) -> dict[str, Any]:
        """Those of these fields that have a value other than the default."""
        values = {name: getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if value != getattr(NEUTRAL, name)}


NEUTRAL = Sampling()
# What a run may say for all of its `gen`; the others are of one `gen` each.
RUN = frozenset(field.name for field in dataclasses.fields(Sampling)) - {
    "regex",
    "json_schema",
    "grammar",
    "tools",
    "tool_choice",
    "separate_reasoning",
}
LISTS = ("stop", "stop_token_ids", "stop_regex")


def as_fields(**given: Any) -> dict[str, Any]:
    """Arguments of `run` and `gen` as fields of `Sampling`: those that are not None."""
    return {
        name: _listed(value) if name in LISTS else value
        for name, value in given.items()
        if value is not None
    }


def _listed(value: str | int | Sequence[Any]) -> tuple[Any, ...]:
    return (value,) if isinstance(value, str | int) else tuple(value)
