"""Conversations, tools and reasoning on SGLang's /generate.

SGLang's own server has these on its OpenAI routes alone. A program of the language
(`penstock.lang`) mixes its own text with generated text and scored choices within one turn, so it
needs one prompt of two parts: what the chat template makes of the turns so far, and text behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from aiohttp import web

from penstock_router.api.fields import checked
from penstock_router.api.openai_chat import ChatRequest
from penstock_router.api.openai_message import Message
from penstock_router.api.openai_tools import shown_calls
from penstock_router.api.options import Options
from penstock_router.api.reply import ReplyOutput
from penstock_router.api.schema import ClientObject
from penstock_router.api.schema_types import AtMost
from penstock_router.text import TextModel
from penstock_router.text.marked import MarkedText
from penstock_router.tools.definition import MAX_TOOLS
from penstock_router.tools.events import Event, joined
from penstock_router.tools.plan import ReplyPlan

MAX_MESSAGES = 4096
NAMES = (
    "messages",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "chat_template_kwargs",
    "add_generation_prompt",
    "continue_final_message",
)
EXTENSIONS = (*NAMES, "separate_reasoning")  # as /model_info names them

Objects = list[dict[str, Any]]


class Chat(ChatRequest):
    """Those fields as /v1/chat/completions checks them, but without a conversation they are about
    tools alone."""

    messages: Annotated[list[Message], AtMost(MAX_MESSAGES)] = []


class ChatFields(ClientObject):
    """The fields, which `chat_of` checks."""

    messages: Annotated[Objects, AtMost(MAX_MESSAGES)] = []
    tools: Annotated[Objects, AtMost(MAX_TOOLS)] = []
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool = True
    chat_template_kwargs: dict[str, Any] = {}
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    separate_reasoning: bool = False  # `meta_info` says what the model thought, and what it said


async def chat_of(request: web.Request, body: ChatFields) -> Chat | None:
    """The conversation or the tools of a body; None where it has neither. Raises ApiError."""
    if not (body.messages or body.tools or body.separate_reasoning):
        return None
    given = {name: getattr(body, name) for name in NAMES}
    return await checked(
        request, Chat, {name: v for name, v in given.items() if v not in (None, [], {})}
    )


def plan_of(chat: Chat | None, body: ChatFields, text: TextModel) -> ReplyPlan | None:
    """How an answer is read; None where nobody asked for more than its text."""
    if chat is None or not (body.tools or body.separate_reasoning):
        return None
    return text.replies.plan(chat.toolbox())


async def prompts_of(chat: Chat, tails: Sequence[str], text: TextModel) -> list[MarkedText]:
    """The conversation as the template writes it, once with each of the texts behind it. Raises
    TemplateError."""
    page = await text.written(chat.conversation(text.replies.shows_tools))
    return [page.followed_by(tail) for tail in tails]


def read_reply(
    plan: ReplyPlan | None,
    options: Options,
    text: TextModel,
    prompt: Sequence[int],
    ids: Sequence[int],
    shown: str,
) -> dict[str, Any]:
    """What a whole answer holds, for `meta_info`: what was said, thought and called.

    plan: None where the model's answers are text, as shown. ids: what was generated.
    """
    if plan is None:
        return {"content": shown, "reasoning_content": "", "tool_calls": []}
    parser = plan.parser(plan.thinks(prompt, text.token_text))
    characters = plan.dialect.alphabet.characters
    special = text.tokenizer.special_ids
    output = ReplyOutput(text.detokenizer(prompt), special, options, parser, characters)
    events: list[Event] = []
    for token in ids:
        output.push(token)
        events += output.events
        if output.stopped:
            break
    output.close()
    reply = joined([*events, *output.events])
    return {
        "content": reply.text,
        "reasoning_content": reply.reasoning,
        "tool_calls": shown_calls(reply.calls),
    }
