"""Requests of SGLang's /generate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, PlainValidator, WithJsonSchema, model_validator

from penstock_router.api.schema import NEUTRAL, ClientObject
from penstock_router.api.schema_types import (
    INT32,
    AtMost,
    Integer,
    Priority,
    packed,
)
from penstock_router.api.sglang_chat import ChatFields
from penstock_router.api.sglang_sampling import SamplingParams
from penstock_router.api.time_limit import TimeLimited
from penstock_router.limits import MAX_TOP_LOGPROBS

MAX_PROMPTS = 4096  # of a call
MAX_GIVEN = 256  # tokens whose log-probabilities are asked for at each place
MAX_NAME = 128  # characters of a `rid` and of an `extra_key`
DEFAULT_NEW_TOKENS = 128
_ID = {"type": "integer", "minimum": 0, "maximum": 2**32 - 1}
_IDS = {"type": "array", "items": _ID, "minItems": 1}
_FIELDS = {"maxItems": MAX_PROMPTS, "minItems": 1, "type": "array"}


def _input_ids(value: Any) -> list[Sequence[int]] | Sequence[int]:
    """Token ids of a prompt, or of several, packed."""
    rule = "`input_ids` must be a list of token ids, or a list of such lists, none of them empty"
    if not isinstance(value, list) or not value:
        raise ValueError(rule)
    several = isinstance(value[0], list)
    if several and len(value) > MAX_PROMPTS:
        raise ValueError(f"`input_ids` must hold at most {MAX_PROMPTS} prompts")
    prompts = value if several else [value]
    if not all(isinstance(prompt, list) and prompt for prompt in prompts):
        raise ValueError(rule)
    try:
        ids = [packed(prompt) for prompt in prompts]
    except TypeError:
        raise ValueError(rule) from None
    return ids if several else ids[0]


def _token_lists(value: Any) -> list[list[int]] | list[int]:
    """Token ids, or a list of them for each prompt."""
    rule = (
        f"`token_ids_logprob` must be a list of at most {MAX_GIVEN} token ids, or such a list for "
        "each prompt"
    )
    if not isinstance(value, list) or len(value) > MAX_PROMPTS:
        raise ValueError(rule)
    nested = bool(value) and any(item is None or isinstance(item, list) for item in value)
    lists = [item or [] for item in value] if nested else [value]
    for ids in lists:
        if not isinstance(ids, list) or len(ids) > MAX_GIVEN:
            raise ValueError(rule)
        if any(type(token) is not int or not 0 <= token < 2**32 for token in ids):
            raise ValueError(rule)
    return lists if nested else value


InputIds = Annotated[
    list[Sequence[int]] | Sequence[int],
    PlainValidator(_input_ids),
    WithJsonSchema({"anyOf": [_IDS, {**_FIELDS, "items": _IDS}]}),
]
TokenLists = Annotated[
    list[list[int]] | list[int],
    PlainValidator(_token_lists),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "array", "items": _ID, "maxItems": MAX_GIVEN},
                {**_FIELDS, "items": {"type": "array", "items": _ID, "maxItems": MAX_GIVEN}},
            ]
        }
    ),
]
Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
TopCount = Annotated[Integer, Field(ge=0, le=MAX_TOP_LOGPROBS)]
StartPlace = Annotated[Integer, Field(ge=-1, le=INT32)]

# Each prompt its own, or all the same.
Flags = bool | Annotated[list[bool], AtMost(MAX_PROMPTS)]


class SGLangRequest(ChatFields, TimeLimited):
    """Body of SGLang's /generate: one prompt, or a list, whose fields may be lists too."""

    IGNORED: ClassVar = frozenset(
        {
            "model",
            "modalities",
            "routing_key",
            "routed_dp_rank",
            "data_parallel_rank",
            "disagg_prefill_dp_rank",
            "no_logs",
            "log_metrics",
            "custom_labels",
            "background",
            "conversation_id",
            "return_bytes",
        }
    )
    UNSUPPORTED: ClassVar = {
        "input_embeds": NEUTRAL,
        "image_data": NEUTRAL,
        "video_data": NEUTRAL,
        "audio_data": NEUTRAL,
        "lora_path": NEUTRAL,
        "lora_id": NEUTRAL,
        "session_params": NEUTRAL,
        "session_id": NEUTRAL,
        "custom_logit_processor": NEUTRAL,
        "return_hidden_states": NEUTRAL,
        "return_routed_experts": NEUTRAL,
        "return_entropy": NEUTRAL,
        "return_sampling_mask": NEUTRAL,
        "bootstrap_host": NEUTRAL,
        "bootstrap_port": NEUTRAL,
        "bootstrap_room": NEUTRAL,
    }

    text: str | Annotated[list[str], Field(min_length=1), AtMost(MAX_PROMPTS)] | None = None
    input_ids: InputIds | None = None
    sampling_params: SamplingParams | Annotated[list[SamplingParams], AtMost(MAX_PROMPTS)] = (
        SamplingParams()
    )
    stream: bool = False
    return_logprob: Flags = False
    logprob_start_len: StartPlace | Annotated[list[StartPlace], AtMost(MAX_PROMPTS)] = -1
    top_logprobs_num: TopCount | Annotated[list[TopCount], AtMost(MAX_PROMPTS)] = 0
    token_ids_logprob: TokenLists | None = None
    return_text_in_logprobs: bool = False
    return_prompt_token_ids: bool = False
    rid: Name | Annotated[list[Name], AtMost(MAX_PROMPTS)] | None = None
    extra_key: Annotated[str, Field(max_length=MAX_NAME)] | None = None  # of cached prefixes
    priority: Priority | None = None

    @model_validator(mode="after")
    def _fields_fit(self) -> Self:
        if self.messages and self.input_ids is not None:
            raise ValueError("`input_ids` must not be given with `messages`")
        if not self.messages and (self.text is None) == (self.input_ids is None):
            raise ValueError("exactly one of `text` and `input_ids` must be given")
        count = len(self.prompts)
        for name in (
            "sampling_params",
            "return_logprob",
            "logprob_start_len",
            "top_logprobs_num",
            "rid",
        ):
            value = getattr(self, name)
            if isinstance(value, list) and len(value) != count:
                raise ValueError(
                    f"`{name}` must have one value for each of {count} prompts. Given: {len(value)}"
                )
        if _nested(self.token_ids_logprob) and len(self.token_ids_logprob or ()) != count:
            raise ValueError(f"`token_ids_logprob` must have a list for each of {count} prompts")
        return self

    @property
    def batched(self) -> bool:
        """The answer is a list."""
        if self.text is not None:
            return isinstance(self.text, list)
        return isinstance(self.input_ids, list)

    @property
    def field(self) -> str:
        """The field that holds the prompts."""
        if self.messages:
            return "messages"
        return "text" if self.text is not None else "input_ids"

    @property
    def prompts(self) -> list[str | Sequence[int]]:
        """Each as text or as token ids."""
        given: Any = self.text if self.text is not None else self.input_ids
        return list(given) if self.batched else [given or ""]

    def given(self, index: int) -> tuple[int, ...]:
        """The tokens that a prompt wants to know the log-probabilities of."""
        value: Any = self.token_ids_logprob or []
        return tuple(value[index] if _nested(value) else value)

    def name(self, index: int) -> str:
        """By which a prompt's sequences may be aborted; empty without a `rid`."""
        if self.rid is None or isinstance(self.rid, list):
            return "" if self.rid is None else self.rid[index]
        return f"{self.rid}_{index}" if self.batched else self.rid


def _nested(value: list[list[int]] | list[int] | None) -> bool:
    return bool(value and isinstance(value[0], list))


def of_prompt(value: Any, index: int) -> Any:
    """A field's value for one of several prompts."""
    return value[index] if isinstance(value, list) else value


class AbortRequest(ClientObject):
    """Body of /abort_request."""

    IGNORED: ClassVar = frozenset({"finished_reason", "abort_message"})

    rid: Annotated[str, Field(max_length=MAX_NAME)] = ""
    abort_all: bool = False


class AppendRequest(ClientObject):
    """Body of /concate_and_append_request."""

    src_rids: Annotated[list[str], AtMost(MAX_PROMPTS)] = []
    dst_rid: str = ""
