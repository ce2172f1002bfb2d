"""A chat template, compiled: from messages to text that says what the client wrote in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2

from penstock_router.templates.continuation import render_to_the_end
from penstock_router.templates.environment import Environment
from penstock_router.templates.errors import MissingVariable, TemplateError
from penstock_router.templates.habits import find_habits
from penstock_router.templates.roles import STANDARD, RoleTokens
from penstock_router.templates.traced import ROLE, TEMPLATE, concat, origins, runs, written

Message = Mapping[str, Any]

MAX_CHARACTERS = 8_000_000  # of output


@dataclass(frozen=True, slots=True)
class Script:
    """What is compiled. special_tokens: by their names, as `bos_token`. control_tokens: all that
    the model has, as they are spelt."""

    source: str
    special_tokens: Mapping[str, str]
    control_tokens: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Job:
    """What is rendered. continues: up to the end of the last message, which the answer goes on.
    tools: in OpenAI's shape."""

    messages: Sequence[Message]
    variables: Mapping[str, Any]
    generation_prompt: bool = True
    continues: bool = False
    tools: Sequence[Mapping[str, Any]] | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """What was rendered. client: start and stop of each run of characters that the client wrote."""

    text: str
    client: Sequence[tuple[int, int]]


class ChatTemplate:
    """Raises TemplateError for a source that cannot be compiled."""

    def __init__(self, script: Script) -> None:
        self._special_tokens = {
            name: written(token, TEMPLATE) for name, token in script.special_tokens.items()
        }
        self._role_tokens = RoleTokens(script.control_tokens)
        try:
            self._template = Environment().from_string(script.source)
        except MemoryError:
            raise
        except Exception as error:  # Jinja's, and Python's of the code that Jinja makes
            raise TemplateError(f"syntax error: {error}") from error
        self.habits = find_habits(lambda messages, tools: self._text(messages, {}, True, tools))

    def render(self, job: Job) -> Page:
        """The conversation as the model expects it. Raises TemplateError."""
        messages = [_with_role_marked(message) for message in self.habits.adapt(job.messages)]

        def render(messages: Sequence[Message]) -> str:
            return self._text(messages, job.variables, job.generation_prompt, job.tools)

        text = render_to_the_end(messages, render) if job.continues else render(messages)
        marks = bytearray(origins(text))
        self._role_tokens.claim(text, marks)
        return Page(str.__str__(text), runs(marks, rb"[^%c]+" % TEMPLATE))

    def _text(
        self,
        messages: Sequence[Message],
        variables: Mapping[str, Any],
        generation_prompt: bool,
        tools: Sequence[Mapping[str, Any]] | None,
    ) -> str:
        try:
            return self._collect(
                {
                    **variables,
                    **self._special_tokens,
                    "messages": messages,
                    "add_generation_prompt": generation_prompt,
                    "tools": tools,
                    "documents": None,
                }
            )
        except jinja2.UndefinedError as error:
            raise MissingVariable(str(error)) from error
        except TemplateError:
            raise
        except MemoryError:
            raise TemplateError("the template needs too much memory") from None
        except Exception as error:  # a template may raise whatever Python can
            raise TemplateError(str(error) or type(error).__name__) from error

    def _collect(self, variables: Mapping[str, Any]) -> str:
        pieces = []
        size = 0
        for piece in self._template.generate(variables):
            size += len(piece)
            if size > MAX_CHARACTERS:
                raise TemplateError(f"the rendered text exceeds {MAX_CHARACTERS} characters")
            pieces.append(piece)
        return concat(pieces)


def _with_role_marked(message: Message) -> Message:
    role = message["role"]
    return {**message, "role": written(role, ROLE)} if role in STANDARD else message
