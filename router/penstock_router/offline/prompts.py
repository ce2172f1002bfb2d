"""From a program's prompt to the requests that the engine takes: as for HTTP, by `admission`."""

from __future__ import annotations

import dataclasses
import hmac
from array import array
from collections.abc import Sequence

from penstock_proto.offline_pb2 import Prompt
from penstock_router.api.errors import invalid
from penstock_router.api.options import Names, Options
from penstock_router.api.prepare import requests_of, text_errors
from penstock_router.api.service import Service
from penstock_router.offline.fields import Wanted
from penstock_router.request import GenerationRequest
from penstock_router.text import Conversation
from penstock_router.text.library import TooManyTokens

ID = array("I").itemsize


@dataclasses.dataclass(frozen=True, slots=True)
class Admitted:
    """A prompt that was checked."""

    requests: Sequence[GenerationRequest]
    options: Options
    text: str | None = None  # of a conversation, as the template wrote it


async def admitted(service: Service, wanted: Wanted, prompt: Prompt) -> Admitted:
    """Raises ApiError for whatever is wrong with it."""
    if wanted.fault is not None:
        raise wanted.fault
    seed = prompt.seed if prompt.HasField("seed") else wanted.options.seed
    options = dataclasses.replace(wanted.options, priority=_priority(prompt), seed=seed)
    salt = _salt(prompt)
    special = wanted.add_special_tokens
    if prompt.WhichOneof("scored") is not None:
        return await _scored(service, options, prompt, salt, special)
    text: str | None = None
    ids: str | Sequence[int]
    if prompt.WhichOneof("content") == "messages":
        names = Names("messages", options.names.new_tokens)
        options = dataclasses.replace(options, names=names)
        shows_tools = service.text.replies.shows_tools
        conversation = wanted.conversation_of(prompt.messages, shows_tools)
        text, ids = await _rendered(service, options, conversation)
    else:
        ids = _ids_or_text(prompt)
    [requests] = await requests_of(service, [ids], options, salt, special)
    return Admitted(requests, options, text)


async def _rendered(
    service: Service, options: Options, conversation: Conversation
) -> tuple[str, Sequence[int]]:
    limits = service.engine.limits
    most = limits.max_input_tokens if options.truncate is None else None
    try:
        with text_errors():
            rendered = await service.text.render(conversation, limit=most)
    except TooManyTokens as error:
        raise options.too_many(str(error), limits) from error
    return rendered.text, rendered.ids


async def _scored(
    service: Service, options: Options, prompt: Prompt, salt: bytes, special: bool
) -> Admitted:
    """Nothing is generated: the log-probabilities of tokens behind a prompt are wanted.

    Text behind text is encoded with it, and begins behind as many tokens as the prompt has by
    itself, as evaluations do.
    """
    options = dataclasses.replace(
        options, max_new_tokens=0, sequences=1, prompt_logprobs=True, prompt_top_n=1
    )
    ids, start = await _with_continuation(service, options, prompt, special)
    if not 0 < start < len(ids):
        raise invalid(
            "a prompt and its continuation must come to at least one token each. "
            f"Given: {start} and {len(ids) - start}"
        )
    [[request]] = await requests_of(service, [ids], options, salt, special)
    # Behind the prompt's last token stands the first that is scored.
    request = dataclasses.replace(request, prompt_logprobs_start=start - 1)
    return Admitted([request], options)


async def _with_continuation(
    service: Service, options: Options, prompt: Prompt, special: bool
) -> tuple[Sequence[int], int]:
    """All tokens, and how many are the prompt's."""
    first = _ids_or_text(prompt)
    behind = prompt.text_scored if prompt.HasField("text_scored") else _ids(prompt.ids_scored)
    limits = service.engine.limits
    most = limits.max_input_tokens

    async def encode(text: str, with_special: bool) -> Sequence[int]:
        return await service.text.encode(text, with_special, most)

    try:
        with text_errors():
            if isinstance(first, str) and isinstance(behind, str):
                # Tokens begin with their spaces.
                bare = first.rstrip()
                whole = await encode(first + behind, special)
                return whole, len(await encode(bare, special))
            front = await encode(first, special) if isinstance(first, str) else first
            rest = await encode(behind, False) if isinstance(behind, str) else behind
    except TooManyTokens as error:
        raise options.too_many(str(error), limits) from error
    return array("I", [*front, *rest]), len(front)


def _ids_or_text(prompt: Prompt) -> str | Sequence[int]:
    """What the client sent. Raises ApiError."""
    kind = prompt.WhichOneof("content")
    if kind not in ("text", "ids"):
        raise invalid("a prompt must be text or token ids")
    return prompt.text if kind == "text" else _ids(prompt.ids)


def _ids(data: bytes) -> Sequence[int]:
    if len(data) % ID:
        raise invalid("token ids must be 4 bytes each")
    return array("I", data)


def _priority(prompt: Prompt) -> int:
    if not -100 <= prompt.priority <= 100:
        raise invalid(f"`priority` must be >= -100 and <= 100. Given: {prompt.priority}")
    return prompt.priority


def _salt(prompt: Prompt) -> bytes:
    """With whom cached prefixes are shared: without a salt with everybody who has no API key."""
    given = prompt.cache_salt
    if len(given) > 1024:
        raise invalid(f"`cache_salt` must have at most 1024 characters. Given: {len(given)}")
    return hmac.digest(b"", given.encode(), "sha256") if given else b""
