"""From a client's prompts to requests that the engine takes."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from penstock_router.api.call import Call
from penstock_router.api.errors import from_template, invalid
from penstock_router.api.keys import cache_salt
from penstock_router.api.options import Options, check_token
from penstock_router.api.output import Output
from penstock_router.api.service import Service
from penstock_router.limits import Limits
from penstock_router.request import GenerationRequest
from penstock_router.templates.errors import TemplateError
from penstock_router.text import Conversation
from penstock_router.text.library import TokenizerError, TooManyTokens

Prompt = str | Sequence[int] | Conversation  # ids as the schema packs them


async def admit(
    call: Call, prompts: Sequence[Prompt], options: Options, add_special_tokens: bool = True
) -> list[list[GenerationRequest]]:
    """Tokenise and check. For each prompt: one request a sequence.

    The caller holds a permit for each prompt, so that no more than those wait for a tokeniser.
    Raises ApiError.
    """
    limits = call.service.engine.limits
    # The end of a text has the tokens of its own only where all of it is tokenised.
    most = limits.max_input_tokens if options.truncate is None else None
    salt = cache_salt(call.request, options.cache_salt)
    requests = []
    for prompt in prompts:
        try:
            ids = await _tokens(
                call.service, prompt, options.names.prompt, add_special_tokens, most
            )
        except TooManyTokens as error:
            raise options.too_many(str(error), limits) from error
        admitted = options.requests(ids, limits, salt)
        _check_ids(admitted[0].prompt, limits, prompt is not ids)
        requests.append(admitted)
    call.validated()
    return requests


async def _tokens(
    service: Service, prompt: Prompt, name: str, add_special_tokens: bool, limit: int | None
) -> Sequence[int]:
    """Raises ApiError, and TooManyTokens when there are more than `limit`."""
    with text_errors():
        if isinstance(prompt, str):
            ids = await service.text.encode(prompt, add_special_tokens, limit)
            if prompt and not ids:
                raise invalid(f"`{name}` must come to at least one token. The tokenizer makes none")
            return ids
        if isinstance(prompt, Conversation):
            return (await service.text.render(prompt, limit=limit)).ids
    return prompt


@contextmanager
def text_errors() -> Iterator[None]:
    """What is wrong with a text, as an ApiError."""
    try:
        yield
    except TokenizerError as error:
        raise invalid(str(error)) from error
    except TemplateError as error:
        raise from_template(error) from error


@contextmanager
def listing_errors(most: int, name: str) -> Iterator[None]:
    """The same where tokens are listed, of texts that need not fit, but might.

    most: tokens that a prompt may have. name: of the field.
    """
    with text_errors():
        try:
            yield
        except TooManyTokens as error:
            sentence = f"`{name}` must have less than {most} tokens. Given: {error}"
            raise invalid(sentence) from error


def _check_ids(ids: Sequence[int], limits: Limits, from_text: bool) -> None:
    """Refuse ids that the model has no rows for, whatever they come from: a client, or a tokenizer
    that knows more tokens than the model. Raises ApiError.

    2 us for 1,024 in an array, where `min` and `max` of a tuple take 25.
    """
    rows = limits.vocab_size
    if isinstance(ids, array) and (not ids or np.frombuffer(ids, np.uint32).max() < rows):
        return
    wrong = next((token for token in ids if not 0 <= token < rows), None)
    if wrong is None:
        return
    if from_text:
        raise invalid(
            f"the prompt comes to the token id {wrong}, which the tokenizer has and the model "
            f"lacks: its ids are < {rows}"
        )
    check_token(wrong, limits, "prompt")


def output(service: Service, request: GenerationRequest, options: Options) -> Output:
    """Where the text of a sequence comes together."""
    text = service.text
    return Output(text.detokenizer(request.prompt), text.tokenizer.special_ids, options)
