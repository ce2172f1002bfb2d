"""Chat templates: Jinja from the model folder, run as the untrusted program that it is."""

from __future__ import annotations

import contextvars
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from penstock_router.text.files import read_json, token_content

RENDER_SECONDS = 1.0
MAX_OPERATIONS = 1_000_000  # loop rounds and calls; a long conversation needs a few thousand
MAX_CHARACTERS = 8_000_000  # of output, and of any string that an operator makes


class TemplateError(Exception):
    """The template is missing or broken, refuses the messages, or ran beyond its bounds."""


class MissingVariable(TemplateError):
    """The template needs something that the request does not have."""


class _Budget:
    """What one rendering may still use."""

    def __init__(self) -> None:
        self._operations = MAX_OPERATIONS
        self._deadline = time.monotonic() + RENDER_SECONDS

    def spend(self) -> None:
        self._operations -= 1
        if self._operations < 0:
            raise TemplateError(f"the template takes more than {MAX_OPERATIONS} operations")
        # Looking at the clock every time would double the cost of a loop.
        if self._operations % 256 == 0 and time.monotonic() > self._deadline:
            raise TemplateError(f"the template takes more than {RENDER_SECONDS} seconds")


_budget: contextvars.ContextVar[_Budget] = contextvars.ContextVar("budget")


def _bounded(iterable: Iterable[Any]) -> Iterator[Any]:
    budget = _budget.get()
    for item in iterable:
        budget.spend()
        yield item


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, with every loop round and call counted and no operator that makes giants."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for loop in tree.find_all(nodes.For):
            loop.iter = nodes.Filter(
                loop.iter, "_bounded", [], [], None, None, lineno=loop.lineno
            ).set_environment(self)
        return tree

    def call(self, context: Context, obj: Any, *args: Any, **kwargs: Any) -> Any:
        _budget.get().spend()
        for value in (*args, *kwargs.values()):  # 'x'.ljust(10**9) and its like
            if isinstance(value, int) and abs(value) > MAX_CHARACTERS:
                raise TemplateError(f"the template calls a function with the number {value}")
        return super().call(context, obj, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        _budget.get().spend()
        if operator == "**":
            raise TemplateError("the template uses the operator **")
        if operator == "%" and isinstance(left, str):
            raise TemplateError("the template formats a string with the operator %")
        if operator == "*":
            sizes = [len(v) if hasattr(v, "__len__") else v for v in (left, right)]
            whole = all(isinstance(size, int) for size in sizes)
            if whole and abs(sizes[0] * sizes[1]) > MAX_CHARACTERS:
                raise TemplateError("the template multiplies to something too large")
        return super().call_binop(context, operator, left, right)


class _GenerationTag(Extension):
    """`{% generation %}` marks the assistant's words for training; here it only shows them."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """A compiled template with the special tokens that it may name. Safe in several threads."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        self._special_tokens = dict(special_tokens)
        try:
            self._template = _environment().from_string(source)
        except (jinja2.TemplateError, RecursionError) as error:
            raise TemplateError(f"syntax error: {error}") from error

    def render(self, **variables: Any) -> str:
        """The conversation as the model expects it. Raises TemplateError."""
        _budget.set(_Budget())
        try:
            return self._collect(self._special_tokens | variables)
        except jinja2.UndefinedError as error:
            raise MissingVariable(str(error)) from error
        except TemplateError:
            raise
        except Exception as error:  # a template may raise whatever Python can
            raise TemplateError(str(error) or type(error).__name__) from error

    def _collect(self, variables: dict[str, Any]) -> str:
        pieces = []
        size = 0
        for piece in self._template.generate(variables):
            size += len(piece)
            if size > MAX_CHARACTERS:
                raise TemplateError(f"the rendered text exceeds {MAX_CHARACTERS} characters")
            pieces.append(piece)
        return "".join(pieces)


def load_chat_template(
    model_path: Path, config: Mapping[str, Any], override: Path | None
) -> ChatTemplate | None:
    """The folder's template; None when it has none.

    config: tokenizer_config.json. override: a `.jinja` file that the operator named.
    Raises ValueError for a template that cannot be read or compiled.
    """
    source = _source(model_path, config, override)
    if source is None:
        return None
    special_tokens = _special_tokens(model_path, config)
    try:
        return ChatTemplate(source, special_tokens)
    except TemplateError as error:
        raise ValueError(f"chat template of {model_path}: {error}") from error


def _source(model_path: Path, config: Mapping[str, Any], override: Path | None) -> str | None:
    if override is not None and override.suffix == ".jinja":
        return override.read_text(encoding="utf-8")
    if override is not None and (template := _choose(config.get("chat_template"))):
        return template
    if (path := model_path / "chat_template.jinja").is_file():
        return path.read_text(encoding="utf-8")
    if template := _choose(read_json(model_path / "chat_template.json").get("chat_template")):
        return template
    return _choose(config.get("chat_template"))


def _choose(template: object) -> str | None:
    """A template, or the one named `default` of a list."""
    if isinstance(template, str):
        return template
    if isinstance(template, list):
        named = {t.get("name"): t.get("template") for t in template if isinstance(t, dict)}
        chosen = named.get("default", next(iter(named.values()), None))
        return chosen if isinstance(chosen, str) else None
    return None


def _special_tokens(model_path: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """bos_token, eos_token and so on, for the template to write."""
    tokens: dict[str, str] = {}
    for source in (read_json(model_path / "special_tokens_map.json"), config):
        for name, value in source.items():
            if name.endswith("_token") and (text := token_content(value)) is not None:
                tokens[name] = text
    return {"bos_token": "", "eos_token": ""} | tokens


def _environment() -> _Environment:
    environment = _Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols", _GenerationTag],
    )
    del environment.globals["lipsum"]  # makes text of any length by itself
    for name in ("center", "indent", "wordwrap", "format"):  # make giants of a few characters
        environment.filters[name] = _limited(environment.filters[name])
    environment.filters["_bounded"] = _bounded
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _limited(function: Any) -> Any:
    """The filter, without numbers that are larger than a text may be."""

    def limited(*args: Any, **kwargs: Any) -> Any:
        for value in (*args, *kwargs.values()):
            if isinstance(value, int) and abs(value) > 10_000:
                raise TemplateError(f"the template fills a text up to {value} characters")
        return function(*args, **kwargs)

    for name in ("jinja_pass_arg",):
        if hasattr(function, name):
            setattr(limited, name, getattr(function, name))
    return limited


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own escapes what HTML would misread; a model reads plain JSON.
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)
