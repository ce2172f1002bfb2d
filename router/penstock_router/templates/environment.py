"""The sandbox that templates run in: Jinja as transformers sets it up, with traced strings.

Wherever Jinja itself makes strings, it makes traced ones here: of a template's literals, of output
that is collected (macros, blocks, `~`), of `join` and `format`. Nothing is computed while a
template is compiled, so that all it computes is bounded alike.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from jinja2 import nodes, pass_eval_context
from jinja2.compiler import CodeGenerator, Frame
from jinja2.ext import Extension
from jinja2.filters import do_join
from jinja2.nodes import EvalContext
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter

from penstock_router.templates.errors import TemplateError
from penstock_router.templates.traced import EMPTY, TEMPLATE, Traced, concat, origins, written


class _TracingGenerator(CodeGenerator):
    """Python code in which the template's literals stand in a list, as traced strings."""

    environment: Environment

    def visit_Const(self, node: nodes.Const, frame: Frame) -> None:
        if isinstance(node.value, str):
            self.write(self._literal(node.value))
        else:
            super().visit_Const(node, frame)

    def visit_TemplateData(self, node: nodes.TemplateData, frame: Frame) -> None:
        self.write(self._literal(node.data))

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        if frame.eval_ctx.volatile or frame.eval_ctx.autoescape:
            super().visit_Concat(node, frame)  # escapes
            return
        self.write("concat(map(str, (")
        for child in node.nodes:
            self.visit(child, frame)
            self.write(", ")
        self.write(")))")

    def _output_const_repr(self, group: Iterable[Any]) -> str:
        return self._literal("".join(group))

    def _output_child_to_const(self, node: nodes.Expr, frame: Frame, finalize: Any) -> str:
        if not isinstance(node, nodes.TemplateData):
            raise nodes.Impossible  # computes nothing
        return node.data

    def _literal(self, text: str) -> str:
        literals = self.environment.literals
        literals.append(written(text, TEMPLATE))
        return f"environment.literals[{len(literals) - 1}]"


class _Formatter(SandboxedFormatter):
    """`str.format` of a format that the template wrote."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self._pieces: list[str] = []
        self._in_a_field = False  # whose own format may have fields

    def parse(self, format_string: Any) -> Iterator[Any]:
        if self._in_a_field:
            yield from super().parse(format_string)
            return
        self._in_a_field = True
        for field in super().parse(format_string):
            self._pieces.append(written(field[0], TEMPLATE))
            yield field

    def format_field(self, value: Any, format_spec: str) -> str:
        text: str = super().format_field(value, format_spec)
        self._pieces.append(value if value == text else text)
        return text

    def vformat(self, format_string: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        text = super().vformat(format_string, args, kwargs)
        if set(origins(format_string)) - {TEMPLATE}:
            return text
        traced = concat(self._pieces)
        return traced if traced == text else text  # a field may stand in the width of another


class _GenerationTag(Extension):
    """`{% generation %}` marks the assistant's words for training; here it only shows them."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class Environment(ImmutableSandboxedEnvironment):
    """The surroundings of one template."""

    code_generator_class = _TracingGenerator
    concat = staticmethod(concat)

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,
            extensions=["jinja2.ext.loopcontrols", _GenerationTag],
        )
        self.literals: list[Traced] = []
        del self.globals["lipsum"]  # nothing for a prompt
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = _strftime_now
        self.filters["tojson"] = _tojson
        self.filters["join"] = _join

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        form = getattr(value, "__self__", None)
        if not isinstance(form, Traced) or value.__name__ not in ("format", "format_map"):
            return super().wrap_str_format(value)

        def fill(*args: Any, **kwargs: Any) -> str:
            fields, named = ((), args[0]) if value.__name__ == "format_map" else (args, kwargs)
            return _Formatter(self).vformat(form, fields, named)

        return fill


@pass_eval_context
def _join(
    context: EvalContext, value: Iterable[Any], d: str = EMPTY, attribute: str | int | None = None
) -> str:
    joined: str = do_join(context, value, concat((str(d),)), attribute)
    return joined


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
