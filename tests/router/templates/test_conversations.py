"""How messages are given to a template, and where a continued one ends."""

from __future__ import annotations

from typing import Any

import pytest

from penstock_router.templates.errors import TemplateError
from penstock_router.templates.template import ChatTemplate, Job, Script
from support.assets import needs_assets
from support.chat_assets import real_names, source

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TRIMMING = CHATML.replace("m.content", "m.content | trim")
ANSWER_ONLY = CHATML.replace("m.content", "m.content.split('</think>')[-1]")
ANSWER_TRIMMED = ANSWER_ONLY.replace("[-1]", "[-1].rstrip()")
REASONING = CHATML.replace(
    "{{ m.content }}",
    "{% set c = m.content.split('</think>') %}{% if c | length > 1 %}"
    "<think>{{ c[0].split('<think>')[-1] }}</think>{{ c[-1].lstrip('\n') }}"
    "{% else %}{{ m.content }}{% endif %}",
)
FROM_LIST = CHATML.replace(
    "{{ m.content }}",
    "{% for c in m.content %}{% if c.type == 'text' %}{{ c.text }}{% endif %}{% endfor %}",
)


def text_of(template: str, *messages: dict[str, Any], **job: Any) -> str:
    return ChatTemplate(Script(template, {})).render(Job(messages, {}, **job)).text


def message(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def parts(*texts: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text} for text in texts]


@pytest.mark.parametrize(
    ("template", "answer", "shown"),
    [
        *(
            (CHATML, answer, answer)
            for answer in ("end", ">", "", "\n", "a \n", " a", "<|im_end|>")
        ),
        *((CHATML, answer, answer) for answer in ("assistant", "<|im_start|>assistant\n", "1\n2")),
        *(
            (TRIMMING, "a \n", "a"),
            (TRIMMING, " \n ", ""),
            (TRIMMING, "", ""),
            (TRIMMING, " a", "a"),
        ),
        (ANSWER_ONLY, "<think>a</think>b", "b"),
        (ANSWER_ONLY, "<think>a</think>", ""),
        (ANSWER_ONLY, "<think>a</think>\n", "\n"),
        (ANSWER_ONLY, "<think>a", "<think>a"),
        (ANSWER_TRIMMED, "<think>a</think> \n", ""),
        (REASONING, "<think>a</think>b", "<think>a</think>b"),
        (REASONING, "<think>a</think>", "<think>a</think>"),
        (REASONING, "<think>a</think>\n\n", "<think>a</think>"),
        (FROM_LIST, "end", "end"),
        (FROM_LIST, "", ""),
        (FROM_LIST, parts("e", "nd\n"), "end\n"),
        (CHATML, parts("e", "nd\n"), "end\n"),
    ],
)
def test_an_answer_is_continued_where_it_ends(template: str, answer: Any, shown: str) -> None:
    user = message("user", "Repeat: <think>a</think>b <think>a</think> end > \n")
    text = text_of(template, user, message("assistant", answer), continues=True)
    begun = text_of(template, user, generation_prompt=True)
    assert text == begun + shown


def test_the_end_is_marked_as_the_clients() -> None:
    template = ChatTemplate(Script(CHATML, {}))
    for content in ("ab ", "", "\n"):
        page = template.render(Job([message("assistant", content)], {}, False, True))
        assert page.text == f"<|im_start|>assistant\n{content}"
        assert page.client == [(12, 21), (22, 22 + len(content))][: 2 if content else 1]


def test_a_message_that_is_not_shown_cannot_go_on() -> None:
    with pytest.raises(TemplateError, match="does not show the last message"):
        text_of("{{ messages[0].content }}", message("user", "Hi"), message("assistant", "x"),
                continues=True)  # fmt: skip


@needs_assets
@pytest.mark.parametrize("name", real_names())
@pytest.mark.parametrize("answer", ["Hi there, my", "a \n", "", "<think>\nx\n</think>\n\ny"])
def test_as_transformers_continues(name: str, answer: str) -> None:
    utilities = pytest.importorskip("transformers.utils.chat_template_utils")
    messages = [message("user", "Say hi, <think>x</think>y"), message("assistant", answer)]
    tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    try:
        theirs = utilities.render_jinja_template(
            conversations=[messages],
            chat_template=source(name),
            continue_final_message=True,
            **tokens,
        )[0][0]
    except Exception as error:
        pytest.skip(f"transformers: {error}")
    ours = ChatTemplate(Script(source(name), tokens))
    text = ours.render(Job(messages, {}, False, True)).text
    if not answer:  # they cut white space of the template too, which its header ends in
        assert text.rstrip() == theirs.rstrip()
    else:
        assert text == theirs


@pytest.mark.parametrize("content", ["one two", parts("one ", "two")])
@pytest.mark.parametrize("template", [CHATML, FROM_LIST])
def test_templates_get_strings_or_parts_as_they_want(template: str, content: Any) -> None:
    for role in ("user", "system", "assistant", "tool"):
        text = text_of(template, message(role, content), generation_prompt=False)
        assert text == f"<|im_start|>{role}\none two<|im_end|>\n"


def test_roles_may_want_different_things() -> None:
    """As those of vision models: parts of users, and strings of others."""
    template = (
        "{% for m in messages %}[{{ m.role }}]{% if m.role == 'user' %}{{ m.content[0].text }}"
        "{% else %}{{ m.content | trim }}{% endif %}{% endfor %}"
    )
    turns = [("system", "s"), ("user", "u"), ("assistant", "a"), ("user", "v")]
    messages = [message(*turn) for turn in turns]
    in_parts = [message(role, parts(text)) for role, text in turns]
    assert text_of(template, *messages) == text_of(template, *in_parts)
    assert text_of(template, *messages) == "[system]s[user]u[assistant]a[user]v"


@pytest.mark.parametrize(
    ("template", "role"),
    [
        (CHATML, "developer"),
        ("{% for m in messages %}{% if m.role == 'system' %}system\n{{ m.content }}"
         "{% elif m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}", "system"),
        ("{% for m in messages %}{% if m.role not in ('user', 'system') %}"
         "{{ raise_exception('unknown role') }}{% endif %}{{ m.role }}\n{{ m.content }}"
         "{% endfor %}", "system"),
    ],
)  # fmt: skip
def test_developer_is_system_where_it_is_unknown(template: str, role: str) -> None:
    text = text_of(template, message("developer", "Be brief."), message("user", "Hi"))
    assert f"{role}\nBe brief." in text


PHI = "{% for m in messages %}{{ '<|' + m.role + '|>' }}{{ m.content }}{% endfor %}"
TOKENS = ["<|user|>", "<|assistant|>", "<|end|>", "user", "assistant", "<|im_start|>user"]


@pytest.mark.parametrize(
    ("template", "role", "client"),
    [
        (PHI, "user", [(8, 9)]),  # a control token with a role in it
        (PHI, "end", [(2, 5), (7, 8)]),  # no role, and a client that tries one
        (PHI.replace("m.role", "(m.role | upper)"), "user", [(2, 6), (8, 9)]),  # no such token
        (CHATML, "assistant", [(12, 21), (22, 23)]),  # a token that is a role stays text
        ("{{ messages[0].role }}|>{{ messages[0].content }}", "user", [(0, 4), (6, 7)]),
        ("<|{{ messages[0].role }}", "user", [(2, 6)]),
        ("<{{ messages[0].content }}{{ messages[0].role }}|>", "user", [(1, 6)]),
    ],
)
def test_control_tokens_around_roles(
    template: str, role: str, client: list[tuple[int, int]]
) -> None:
    compiled = ChatTemplate(Script(template, {}, TOKENS))
    page = compiled.render(Job([message(role, "|")], {}, generation_prompt=False))
    assert page.client == client, page.text
