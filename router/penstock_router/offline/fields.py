"""What a program may ask for: the fields of HTTP requests, with a program's bounds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import orjson
from pydantic import Field

from penstock_proto.offline_pb2 import Parameters
from penstock_router.api.errors import ApiError, invalid
from penstock_router.api.openai_chat import ChatRequest
from penstock_router.api.openai_completion import CompletionRequest
from penstock_router.api.options import Names, Options
from penstock_router.api.schema import Reading, parse
from penstock_router.api.schema_types import Integer, TokenIds
from penstock_router.api.service import Service
from penstock_router.limits import MAX_TOP_LOGPROBS
from penstock_router.text import Conversation

MAX_SEQUENCES = 16_384  # of a prompt; they are begun as others end
MAX_GIVEN = 128  # tokens whose log-probabilities are asked for at each place
MOST_LIKELY = 1000  # of the launcher's option
PROMPT: list[str | Sequence[int]] = ["-"]  # stands where the schema has a prompt

TopCount = Annotated[Integer, Field(ge=0, le=MOST_LIKELY)]


class CompletionFields(CompletionRequest):
    """How to continue prompts, whatever those are."""

    prompt: list[str | Sequence[int]] = Field(default=PROMPT, init=False)
    n: Annotated[Integer, Field(ge=1, le=MAX_SEQUENCES)] = 1
    logprobs: TopCount | None = None
    prompt_logprobs: TopCount | None = None
    logprob_token_ids: Annotated[Sequence[int], TokenIds(MAX_GIVEN)] | None = None
    detokenize: bool = True

    @property
    def top_n(self) -> int | None:
        return 0 if self.logprobs is None and self.logprob_token_ids else self.logprobs

    @property
    def names(self) -> Names:
        return Names("prompt", "max_tokens")


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """Parameters that were checked. `fault` is what is wrong with them."""

    options: Options = Options()
    conversation: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    detokenize: bool = True
    add_special_tokens: bool = True
    fault: ApiError | None = None

    @classmethod
    def of(cls, message: Parameters, service: Service) -> Wanted:
        """What a message asks for, or what is wrong with it."""
        try:
            body = parse(CompletionFields, _object(message.fields), Reading(strict=True))
            _check_most_likely(body, service)
            options = body.options(service.config, priority=0)
            given = tuple(body.logprob_token_ids or ())
            sampling = dataclasses.replace(options.sampling, given=given)
            options = dataclasses.replace(options, sampling=sampling)
            options.check(service.engine.limits)
            conversation = _object(message.conversation or b"{}")
            return cls(options, conversation, body.detokenize, body.add_special_tokens)
        except ApiError as error:
            return cls(fault=error)

    def conversation_of(self, messages: bytes, shows_tools: bool) -> Conversation:
        """What the template gets. messages: a JSON list. Raises ApiError."""
        body = parse(ChatRequest, {**self.conversation, "messages": _json(messages, "messages")})
        return body.conversation(shows_tools)


def _object(data: bytes) -> dict[str, Any]:
    value = _json(data, "parameters")
    if not isinstance(value, dict):
        raise invalid("parameters must be a JSON object")
    return value


def _json(data: bytes, name: str) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:  # infinity and NaN are none
        raise invalid(f"{name} are not valid JSON: {error}") from None


def _check_most_likely(body: CompletionFields, service: Service) -> None:
    """The shards have room for so many in each place."""
    most = max(service.config.max_top_n_tokens, MAX_TOP_LOGPROBS)
    for name in ("logprobs", "prompt_logprobs"):
        if (getattr(body, name) or 0) > most:
            raise invalid(
                f"`{name}` must be at most {most} (`--max-top-n-tokens`). "
                f"Given: {getattr(body, name)}"
            )
