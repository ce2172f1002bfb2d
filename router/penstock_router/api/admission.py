"""From a client's prompts to requests that the engine takes."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np

from penstock_router.api.call import Call
from penstock_router.api.errors import from_template, invalid
from penstock_router.api.options import Options, check_token
from penstock_router.api.output import Output
from penstock_router.api.service import Service
from penstock_router.request import GenerationRequest
from penstock_router.text import Conversation
from penstock_router.text.chat_template import TemplateError

Prompt = str | Sequence[int] | Conversation  # ids as the schema packs them


async def admit(
    call: Call, prompts: Sequence[Prompt], options: Options, add_special_tokens: bool = True
) -> list[list[GenerationRequest]]:
    """Tokenise and check. For each prompt: one request a sequence.

    The caller holds a permit for each prompt, so that no more than those wait for a tokeniser.
    Raises ApiError.
    """
    limits = call.service.engine.limits
    requests = []
    for prompt in prompts:
        ids = await _tokens(call.service, prompt, options.names.prompt, add_special_tokens)
        requests.append(options.requests(ids, limits))
    call.validated()
    return requests


async def _tokens(
    service: Service, prompt: Prompt, name: str, add_special_tokens: bool
) -> Sequence[int]:
    if isinstance(prompt, str):
        check_length(service, prompt, name)
        return await service.text.encode(prompt, add_special_tokens)
    if isinstance(prompt, Conversation):
        try:
            return (await service.text.render(prompt)).ids
        except TemplateError as error:
            raise from_template(error) from error
    limits = service.engine.limits
    # One that is too long is refused for that.
    if len(prompt) <= limits.max_input_tokens and not _in_vocabulary(prompt, limits.vocab_size):
        for token in prompt:
            check_token(token, limits, "prompt")
    return prompt


def _in_vocabulary(ids: Sequence[int], vocab_size: int) -> bool:
    """Whether all ids are. 2 us for 1,024, where `min` and `max` of a tuple take 25."""
    return isinstance(ids, array) and bool(np.frombuffer(ids, np.uint32).max() < vocab_size)


def check_length(service: Service, text: str, name: str = "inputs") -> None:
    """Refuse a text that cannot be tokenised. name: of its field. Raises ApiError."""
    # JSON may hold halves of UTF-16 pairs, which are no characters.
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise invalid(f"`{name}` must be valid Unicode text") from None


def output(service: Service, request: GenerationRequest, options: Options) -> Output:
    """Where the text of a sequence comes together."""
    text = service.text
    return Output(text.detokenizer(request.prompt), text.tokenizer.special_ids, options)
