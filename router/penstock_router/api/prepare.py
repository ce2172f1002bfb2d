"""From a client's prompts to requests that the engine takes."""

from __future__ import annotations

import dataclasses
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from penstock_router.api.errors import from_engine, from_template, invalid
from penstock_router.api.keys import cache_salt
from penstock_router.api.options import Options, check_token
from penstock_router.api.output import Output
from penstock_router.api.reply import ReplyOutput
from penstock_router.api.request_context import RequestContext
from penstock_router.api.ruled_output import RuledOutput, RuledReply
from penstock_router.api.service import REMEMBERED, Service
from penstock_router.api.token_rules import token_rules
from penstock_router.grammar import Grammar
from penstock_router.limits import ServerLimits
from penstock_router.logs import log
from penstock_router.request import BadGrammar, EngineError, GenerationRequest
from penstock_router.templates.errors import TemplateError
from penstock_router.text import Conversation
from penstock_router.text.library import TokenizerError, TooManyTokens
from penstock_router.text.marked import MarkedText

# ids as the schema packs them
Prompt = str | Sequence[int] | Conversation
PromptInput = Prompt | MarkedText  # the latter: of a conversation that is rendered already


async def prepare(
    context: RequestContext,
    prompts: Sequence[PromptInput],
    options: Options,
    add_special_tokens: bool = True,
) -> list[list[GenerationRequest]]:
    """Tokenise and check. For each prompt: one request a sequence.

    The caller holds a permit for each prompt, so that no more than those wait for a tokeniser.
    Raises ApiError.
    """
    options.check_together(len(prompts) * options.sequences)
    salt, lease = cache_salt(context.request, options.cache_salt), context.lease
    if lease is not None:
        lease.check_priority(options.priority)
    requests = await requests_of(
        context.service, prompts, options, salt, add_special_tokens, context.client
    )
    if lease is not None:
        await lease.reserve(requests)
    context.validated()
    return requests


async def requests_of(
    service: Service,
    prompts: Sequence[PromptInput],
    options: Options,
    salt: bytes,
    add_special_tokens: bool = True,
    client: str = "",
) -> list[list[GenerationRequest]]:
    """The same, whoever asks. salt: of the prefix cache. client: empty where nobody knows."""
    limits = service.engine.limits
    rules = await token_rules(options.rules, service.text, service.config, options.ignore_eos)
    if rules is not None:
        sampling = dataclasses.replace(options.sampling, rules=rules)
        options = dataclasses.replace(options, sampling=sampling)
    # The end of a text has the tokens of its own only where all of it is tokenised.
    most = limits.max_input_tokens if options.truncate is None else None
    answer = await _answer(service, options)
    requests = []
    for prompt in prompts:
        try:
            ids = await _tokens(service, prompt, options.names.prompt, add_special_tokens, most)
        except TooManyTokens as error:
            raise options.too_many(str(error), limits) from error
        admitted = options.requests(ids, limits, salt, client)
        _check_ids(admitted[0].prompt, limits, prompt is not ids)
        grammar = await _compiled(service, options, ids, answer)
        if grammar is not None:
            admitted = [dataclasses.replace(one, grammar=grammar) for one in admitted]
        requests.append(admitted)
    return requests


async def _answer(service: Service, options: Options) -> Grammar | None:
    """What the client asks that answers are held to. Raises ApiError."""
    if options.grammar is None:
        return None
    with text_errors():
        return await service.text.aside(options.grammar.grammar)


async def _compiled(
    service: Service, options: Options, ids: Sequence[int], answer: Grammar | None
) -> Grammar | None:
    """What the answer to a prompt is held to, compiled. With tools it hangs on where the prompt
    ends. Raises ApiError."""
    plan, text, grammar = options.reply, service.text, answer
    try:
        if plan is not None:
            with text_errors():
                grammar = await text.aside(lambda: plan.grammar(ids, text.token_text, answer))
        if grammar is None:
            return None
        if service.config.disable_grammar_support:
            raise BadGrammar("the server was started with --disable-grammar-support")
        await service.engine.prepare(grammar)
    except BadGrammar as error:
        if plan is None or not plan.may_be_free or answer is not None:
            raise from_engine(error, answer.asked_by if answer is not None else "") from error
        _log_free(service, error)
        return None
    except EngineError as error:
        raise from_engine(error) from error
    return grammar


def _log_free(service: Service, error: BadGrammar) -> None:
    """Say each reason once, as long as there are not too many to remember."""
    sentence = f"calls of tools are not held to their schemas: {error}"
    if sentence not in service.logged and len(service.logged) < REMEMBERED:
        service.logged.add(sentence)
        log("WARNING", sentence, target="penstock_router.api")


async def _tokens(
    service: Service, prompt: PromptInput, name: str, add_special_tokens: bool, limit: int | None
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
        if isinstance(prompt, MarkedText):
            return await service.text.encode_marked(prompt, limit)
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


def _check_ids(ids: Sequence[int], limits: ServerLimits, from_text: bool) -> None:
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
    detokenizer, special_ids = text.detokenizer(request.prompt), text.tokenizer.special_ids
    ruled = options.has_token_ends
    if options.reply is None:
        if ruled:
            return RuledOutput(detokenizer, special_ids, options, eos_ids=text.eos_ids)
        return Output(detokenizer, special_ids, options)
    parser = options.reply.parser(options.reply.thinks(request.prompt, text.token_text))
    characters = options.reply.dialect.alphabet.characters
    if ruled:
        return RuledReply(
            detokenizer, special_ids, options, parser, characters, eos_ids=text.eos_ids
        )
    return ReplyOutput(detokenizer, special_ids, options, parser, characters)
