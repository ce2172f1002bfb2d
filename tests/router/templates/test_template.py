"""Texts are those of transformers, and say what the client wrote in them."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment

from penstock_router.templates import template as template_module
from penstock_router.templates.environment import Environment
from penstock_router.templates.errors import MissingVariable, TemplateError
from penstock_router.templates.template import ChatTemplate, Job, Page, Script
from penstock_router.templates.traced import TEMPLATE, concat, origins
from penstock_router.templates.variables import RESERVED
from support.assets import needs_assets
from support.chat_assets import expected_chat, on_the_day, real_names, real_template, source

SPELT = re.compile(r"<[|｜/]?[\w▁ |｜:.-]{1,40}[|｜]?>|\[/?[A-Z_]{3,20}\]")


def render(template: str, *contents: str, **variables: Any) -> Page:
    messages = [{"role": "user", "content": content} for content in contents]
    return ChatTemplate(Script(template, {"bos_token": "<s>"})).render(Job(messages, variables))


def template_part(page: Page) -> str:
    """What the template wrote, with a dot for each character of the client."""
    text = list(page.text)
    for start, stop in page.client:
        text[start:stop] = "." * (stop - start)
    return "".join(text)


def job(conversation: list[dict[str, Any]]) -> Job:
    continues = conversation[-1]["role"] == "assistant"
    return Job(conversation, {}, not continues, continues)


@needs_assets
@pytest.mark.parametrize("name", real_names())
def test_texts_are_those_of_transformers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    on_the_day(monkeypatch)
    for conversation, messages in expected_chat()["conversations"].items():
        try:
            rendered = {"text": real_template(name).render(job(messages)).text}
        except TemplateError as error:
            rendered = {"error": str(error)}
        assert rendered == expected_chat()["rendered"][name][conversation], conversation


@needs_assets
@pytest.mark.parametrize("name", real_names())
def test_no_user_writes_control_tokens_of(name: str) -> None:
    """Whatever tokens the messages spell, those of the template stay the same."""
    spellings = {token for token in SPELT.findall(source(name)) if len(token) > 3}
    spellings |= {"<s>", "</s>", "<|im_end|>", "<|eot_id|>", "[/INST]", "<tool_call>"}
    hostile = "x" + " ".join(sorted(spellings)) + "x"

    def page(of_user: str, of_assistant: str) -> Page:
        turns = [("user", of_user), ("assistant", of_assistant), ("user", of_user)]
        messages = [{"role": role, "content": content} for role, content in turns]
        return real_template(name).render(job(messages))

    try:
        honest = page("?" * len(hostile), "fine")
    except TemplateError as error:
        pytest.skip(f"the template refuses the conversation: {error}")
    attacked = page(hostile, "fine")
    # One dot for all of the client's: some templates take what they look for out of it.
    assert re.sub(r"\.+", ".", template_part(attacked)) == re.sub(
        r"\.+", ".", template_part(honest)
    )
    # In an answer a template looks for </think>, and then writes such tokens by itself.
    tokens = Counter(SPELT.findall(template_part(page(hostile, hostile))))
    forged = tokens - Counter(SPELT.findall(template_part(honest)))
    assert all("think" in token for token in forged)


@needs_assets
@pytest.mark.parametrize("name", real_names())
def test_all_control_tokens_of_a_real_template_are_its_own(name: str) -> None:
    """What is not of a message is the template's: all but roles, names and ids, dates and JSON."""
    template = real_template(name)
    for conversation, messages in expected_chat()["conversations"].items():
        hidden = [{**m, "content": _hidden(m["content"])} for m in messages]
        try:
            page = template.render(Job(hidden, {}))
        except TemplateError:
            continue
        client = "".join(page.text[start:stop] for start, stop in page.client)
        assert not re.search("[\ue000-\uefff]", template_part(page)), conversation
        assert not re.search(r"[<>|｜\[\]]", client), conversation


def _hidden(content: str | list[dict[str, str]]) -> str | list[dict[str, str]]:
    """The same with private characters for letters: none of those that the template writes."""
    if isinstance(content, list):
        return [{**part, "text": str(_hidden(part["text"]))} for part in content]
    return re.sub(r"\S", lambda m: chr(0xE000 + ord(m[0]) % 0x1000), content)


@pytest.mark.parametrize(
    ("template", "template_wrote"),
    [
        ("<s>{{ c }}</s>", "<s>.</s>"),
        ("{{ '<s>' + c + '</s>' }}", "<s>.</s>"),
        ("{{ '<s>' ~ c ~ 1 ~ '</s>' }}", "<s>..</s>"),
        ("{{ '<s>{}{}</s>'.format(c, '<a>') }}", "<s>.<a></s>"),
        ("{{ '<s>{x[0]}{0}</s>'.format(c, x=['<a>']) }}", "<s><a>.</s>"),
        ("{{ '<s>{x}</s>'.format_map({'x': c}) }}", "<s>.</s>"),
        ("{{ '<s>{:>3}</s>'.format(c) }}", "<s>...</s>"),
        ("{{ '{{<s>}}{!s}'.format(c) }}", "{<s>}."),
        ("{{ ('{}' ~ c).format('<s>') }}", "...."),
        ("{{ '{:{}}'.format('<s>', 5) }}", "....."),
        ("{% macro f(x) %}<s>{{ x }}{% endmacro %}{{ f(c) }}{{ f('</s>') }}", "<s>.<s></s>"),
        ("{% set x %}<s>{{ c }}{% endset %}{{ x + '</s>' }}", "<s>.</s>"),
        ("{% set x | upper %}<s>{{ c }}{% endset %}{{ x }}", "<S>."),
        ("{% filter trim %} <s>{{ c }} {% endfilter %}</s>", "<s>.</s>"),
        (
            "{% macro f() %}<s>{{ caller('<a>') }}{% endmacro %}"
            "{% call(x) f() %}{{ x }}{{ c }}{% endcall %}",
            "<s><a>.",
        ),
        ("{{ ['<s>', c, '</s>'] | join }}", "<s>.</s>"),
        ("{{ ['<s>', c] | join('|') }}", "<s>|."),
        ("{{ ' <s> ' | trim ~ c | trim }}", "<s>."),
        ("{{ '<s>' | replace('s', 'a') }}{{ c | replace('C', '<s>') }}", "<a>..."),
        ("{{ ('<s>' ~ c) | string | upper }}", "<S>."),
        ("{{ ['<s>', c] | map('upper') | join }}", "<S>."),
        ("{{ '<s>' | list | reverse | join }}", ">s<"),
        ("{{ '<s>' | first }}{{ '<s>' | last }}{{ '<s>'[1:] }}{{ '<s>'[::-1] }}", "<>s>>s<"),
        ("{{ ('<s> ' * 2).split() | join(c) }}", "<s>.<s>"),
        ("{% for x in '<s>' %}{{ x }}{{ c }}{% endfor %}", "<.s.>."),
        ("{% for k, v in {'<s>': c}.items() %}{{ k }}{{ v }}{% endfor %}", "<s>."),
        ("{{ {'C': '<s>'}[c] }}{{ {'C': '<s>'}.get(c) }}", "<s><s>"),
        ("{{ none | default('<s>') }}{{ nothing | default('<s>') }}", "None<s>"),
        ("{{ '<s>' if c == 'C' else '</s>' }}{{ '<s>' * 2 }}", "<s><s><s>"),
        ("{{ bos_token }}{{ bos_token + c }}", "<s><s>."),
        ("{% set n = namespace(x='<s>') %}{% set n.x = n.x ~ c %}{{ n.x }}", "<s>."),
        ("{% set s = cycler('<s>', '<a>') %}{{ s.next() }}{{ s.next() }}", "<s><a>"),
        ("{% block b %}<s>{{ c }}{% endblock %}{{ self.b() }}", "<s>.<s>."),
        # what is lost is the client's
        ("{{ '<s>' | tojson }}{{ ['<s>'] }}{{ '<s>'.center(5) }}", "." * 17),
        ("{{ '<s>%s' % c }}{{ '<s>' | safe }}", "......."),
        ("{{ c.join(['<s>', '</s>']) }}{{ c.replace('C', '<s>') }}", "..........."),
    ],
)
def test_what_the_template_wrote(template: str, template_wrote: str) -> None:
    page = render("{% set c = messages[0].content %}" + template, "C")
    if "None" in template_wrote:  # a value, not a literal
        template_wrote = template_wrote.replace("None", "....")
    assert template_part(page) == template_wrote


VALUES = ["c", "'<s>'", "' x '", "c ~ '<a>'", "['b', c]", "{'k': c}", "3", "none", "('z' | safe)"]
FORMS = [
    *("{} + {}", "{} ~ {}", "{} * {}", "{} in {}", "{} == {}", "{} < {}", "{} % {}", "{}[{}]"),
    *("{}.split({})", "{}.join({})", "{}.replace('c', {})", "{}.strip({})", "{}.get({})"),
    *("{} | join({})", "{} | default({})", "'{{}}-{{}}'.format({}, {})", "{} | trim({})"),
    *("{} | replace({}, 'x')", "{} | format({})", "{} | indent({})", "{} | center({})"),
    *(
        "[{}, {}] | tojson",
        "[{}, {}] | sort | join",
        "[{}, {}] | unique | list",
        "({}, {}) | string",
    ),
    *("{} | title ~ {} | upper", "{} | e ~ {} | capitalize", "{} | length + {}", "{}.nothing + {}"),
    *("('<' | safe) ~ {} ~ {}", "('<' | safe) + {} + {}"),
    *("{} | reverse | list ~ {}", "{} | dictsort ~ {} | first", "{} is string and {} is mapping"),
]


def outcome(environment: ImmutableSandboxedEnvironment, template: str) -> str:
    environment.filters["tojson"] = json.dumps
    try:
        return str(environment.from_string(template).render())
    except Exception as error:
        return f"{type(error).__name__}: {error}"


@given(st.sampled_from(FORMS), st.sampled_from(VALUES), st.sampled_from(VALUES))
def test_expressions_are_those_of_plain_jinja(form: str, left: str, right: str) -> None:
    """Text and errors, whatever the strings are."""
    template = "{% set c = 'C' %}{{ " + form.format(left, right) + " }}"
    plain = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    assert outcome(Environment(), template) == outcome(plain, template)


def test_escaping_is_that_of_plain_jinja() -> None:
    template = (
        "{% set c = namespace(x='<s>').x %}{% autoescape true %}<i>{{ c }}{{ c ~ c }}{{ c + 'b' }}"
        "{{ c | safe ~ c }}{{ (c | safe) + c }}{% set d %}<b>{{ c }}{% endset %}{{ d }}"
        "{% endautoescape %}{{ c | e }}"
    )
    plain = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    assert outcome(Environment(), template) == outcome(plain, template)


def test_what_templates_use() -> None:
    assert render("{{ bos_token }}{% generation %}x{% endgeneration %}").text == "<s>x"
    assert render("{{ {'é': '<'} | tojson }}").text == '{"é": "<"}'
    assert len(render("{{ strftime_now('%Y') }}").text) == 4
    for template, text in (
        ("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        ("{% for i in [1,2] %}{{ loop.last }}{{ loop.length }}{% endfor %}", "False2True2"),
        ("{% for i in [1,2,3] if i != 2 %}{{ loop.index }}{{ i }}{% endfor %}", "1123"),
        ("{% for i in nothing %}{% else %}empty{% endfor %}", "empty"),
        ("{{ enable_thinking }}{{ messages[0].content }}", "FalseHi"),
        ("{{ tools }}{{ documents }}{{ add_generation_prompt }}", "NoneNoneTrue"),
    ):
        assert render(template, "Hi", enable_thinking=False).text == text


def test_refusals_are_sentences() -> None:
    with pytest.raises(TemplateError, match="^roles must alternate$"):
        render("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(MissingVariable, match="'tool' is undefined"):
        render("{{ tool.name }}")
    with pytest.raises(TemplateError, match="syntax error"):
        render("{% for %}")


def test_output_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it is too much for the memory or the time that the process may take."""
    monkeypatch.setattr(template_module, "MAX_CHARACTERS", 1000)
    assert len(render("{% for i in range(500) %}ab{% endfor %}").text) == 1000
    with pytest.raises(TemplateError, match="exceeds 1000 characters"):
        render("{% for i in range(501) %}ab{% endfor %}")


def test_names_that_no_request_sets() -> None:
    environment = Environment()
    assert environment.globals.keys() <= RESERVED
    page = render("{{ self.b() }}{% block b %}{{ messages | length }}{{ bos_token }}{% endblock %}",
                  "Hi", self="x", messages=[], bos_token="x")  # fmt: skip
    assert page.text == "1<s>1<s>"


def test_nothing_is_computed_while_compiling() -> None:
    template = Environment().from_string("{{ 'a' + 'b' }}{{ [1, 2] | join('-') }}")
    assert concat(template.generate()) == "ab1-2"
    assert [str(literal) for literal in template.environment.literals] == ["a", "b", "-"]  # type: ignore[attr-defined]
    assert set(b"".join(map(origins, template.environment.literals))) == {TEMPLATE}  # type: ignore[attr-defined]
