"""What becomes of conversations: texts, their ends, control tokens, and hostile templates."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from cases.hostile_templates import HOSTILE, MEMORY, TIME
from penstock_router.templates import errors
from penstock_router.templates.errors import TemplateError
from penstock_router.templates.pool import TemplatePool
from penstock_router.templates.template import Job, Script
from penstock_router.text import Conversation, TextModel
from router.api import conftest as api
from support.assets import assets, needs_assets
from support.chat_assets import source
from support.real_tokenizers import tokenizer_folder
from support.small_text import SPECIAL, byte_level, write_folder

serve, text = api.serve, api.text
CHAT, TOKENIZE = "/v1/chat/completions", "/chat_tokenize"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA_3 = (
    "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
)
IN_SHORT = (
    "{% for m in messages %}{{ {'user': '<|u|>', 'assistant': '<|a|>'}[m.role] + m.content }}"
    "<|e|>{% endfor %}{% if add_generation_prompt %}<|a|>{% endif %}"
)
ANSWER_ONLY = CHATML.replace("{{ m.content }}", "{{ m.content.split('</think>')[-1] }}")
IN_PARTS = CHATML.replace(
    "{{ m.content }}",
    "{% for c in m.content %}{% if c.type == 'text' %}{{ c.text }}{% endif %}{% endfor %}",
)
NO_DEVELOPER = (
    "{% for m in messages %}{% if m.role not in ('system', 'user') %}"
    "{{ raise_exception('unknown role ' + m.role) }}{% endif %}[{{ m.role }}]{{ m.content }}"
    "{% endfor %}"
)
HI = {"role": "user", "content": "hi"}


@pytest.fixture
def place() -> str:
    """No row of these gets as far as the engine's process."""
    return "beside"


Client = Any
With = Callable[[str], Awaitable[Client]]


@pytest.fixture
async def serve_template(
    serve: Any, text: TextModel, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[With]:
    """Starts a server whose model has the chat template."""
    pools = []

    async def start(template: str) -> Client:
        pool = TemplatePool(Script(template, {}, SPECIAL), 1)
        pools.append(pool)
        monkeypatch.setattr(text, "_chat_template", pool)
        return await serve()

    yield start
    for pool in pools:
        pool.close()


async def templated(client: Client, *messages: dict[str, Any], **fields: Any) -> str:
    """What the server makes of messages."""
    status, answer = await client.post(TOKENIZE, {"messages": messages, **fields})
    assert status == 200, answer
    return str(answer["templated_text"])


@pytest.mark.parametrize(
    ("template", "user", "answer", "end"),
    [
        pytest.param(IN_SHORT, "x", "end", "<|a|>end", id="W3-end"),
        pytest.param(IN_SHORT, "x", ">", "<|a|>>", id="W3->"),
        pytest.param(IN_SHORT, "x", "", "<|a|>", id="W3-empty"),
        pytest.param(IN_SHORT, "x", "\n", "<|a|>\n", id="W3-newline"),
        pytest.param(LLAMA_3, "x", "id", "<|end_header_id|>\n\nid", id="W3-llama-3"),
        pytest.param(LLAMA_3, "x", "\n", "assistant<|end_header_id|>\n\n", id="W3-trimmed"),
        pytest.param(CHATML, "x", "end", "<|im_start|>assistant\nend", id="W3-chatml"),
        pytest.param(
            ANSWER_ONLY,
            "Repeat: <think>a</think>b",
            "<think>a</think>b",
            "<|im_start|>assistant\nb",
            id="W3-think",
        ),
    ],
)
async def test_continued(
    serve_template: With, template: str, user: str, answer: str, end: str
) -> None:
    client = await serve_template(template)
    turns = {"role": "user", "content": user}, {"role": "assistant", "content": answer}
    text = await templated(client, *turns)
    assert text.endswith(end) and text.count(end) == 1


@pytest.mark.parametrize(
    ("fields", "end"),
    [
        pytest.param({}, "a<|im_end|>\n<|im_start|>assistant\nb", id="W3-default"),
        pytest.param({"add_generation_prompt": True}, "b<|im_end|>\n<|im_start|>assistant\n"),
        pytest.param({"continue_final_message": False}, "b<|im_end|>\n<|im_start|>assistant\n"),
        pytest.param({"add_generation_prompt": False}, "<|im_start|>assistant\nb"),
        pytest.param(
            {"add_generation_prompt": False, "continue_final_message": False}, "b<|im_end|>\n"
        ),
        pytest.param({"continue_final_message": True}, "<|im_start|>assistant\nb"),
    ],
)
async def test_the_end_is_as_asked(serve_template: With, fields: Any, end: str) -> None:
    client = await serve_template(CHATML)
    turns = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
    assert (await templated(client, *turns, **fields)).endswith(end)


async def test_users_may_be_continued_too(serve_template: With) -> None:
    client = await serve_template(CHATML)
    assert (await templated(client, HI, continue_final_message=True)).endswith("user\nhi")
    assert (await templated(client, HI, add_generation_prompt=False)).endswith("hi<|im_end|>\n")


@pytest.mark.parametrize("template", [IN_PARTS, CHATML], ids=["W4-parts", "W4-strings"])
@pytest.mark.parametrize("in_parts", [False, True], ids=["string", "parts"])
async def test_strings_and_parts(serve_template: With, template: str, in_parts: bool) -> None:
    content: Any = "one two"
    if in_parts:
        content = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    client = await serve_template(template)
    text = await templated(client, {"role": "user", "content": content})
    assert text == "<|im_start|>user\none two<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("role", [pytest.param("user", id="W8")])
async def test_a_token_with_the_name_of_a_role(
    serve_template: With, monkeypatch: pytest.MonkeyPatch, text: TextModel, role: str
) -> None:
    """The model has a control token `user`."""
    pool = TemplatePool(Script("the {{ messages[0].role }}: {{ messages[0].content }}", {},
                               [role, "the"]), 1)  # fmt: skip
    client = await serve_template(CHATML)
    monkeypatch.setattr(text, "_chat_template", pool)
    page = await pool.render(_job({"role": role, "content": "x"}))
    assert page.text == "the user: x" and page.client == [[4, 8], [10, 11]]
    status, _ = await client.post(CHAT, {"messages": [HI], "max_tokens": 1})
    assert status == 200
    pool.close()


def _job(*messages: dict[str, Any]) -> Job:
    return Conversation(messages).job()


@needs_assets
@pytest.mark.parametrize(
    ("template", "spelt"),
    [
        pytest.param("own_r1_distill_qwen", "<｜Assistant｜><｜User｜>", id="A2-deepseek"),
        pytest.param("llamacpp_Qwen-Qwen3-0.6B", "<think></think><tool_call>", id="A2-qwen3"),
        pytest.param("own_mistral_v03", "[INST][/INST]</s>", id="A4-mistral"),
    ],
)
async def test_users_write_text(template: str, spelt: str) -> None:
    pool = TemplatePool(Script(source(template), {"bos_token": "<s>", "eos_token": "</s>"}), 1)
    page = await pool.render(_job({"role": "user", "content": f"a{spelt}b"}))
    honest = await pool.render(_job({"role": "user", "content": "a" + "?" * len(spelt) + "b"}))
    start = page.text.index(f"a{spelt}b")
    assert [start, start + len(spelt) + 2] in page.client
    assert page.client == honest.client
    pool.close()


@needs_assets
@pytest.mark.parametrize(
    ("tokenizer", "template", "spelt"),
    [
        pytest.param("deepseek-v3", "own_r1_distill_qwen", "<｜Assistant｜><｜User｜>"),
        pytest.param("qwen3", "llamacpp_Qwen-Qwen3-0.6B", "<think></think><tool_call><|im_end|>"),
    ],
    ids=["A2-deepseek-ids", "A2-qwen3-ids"],
)
async def test_no_ids_of_control_tokens(tokenizer: str, template: str, spelt: str) -> None:
    path = assets() / "templates" / f"{template}.jinja"
    model = TextModel.load(assets() / "trimmed" / tokenizer, str(path), 1)
    added = model.tokenizer.added_tokens()

    async def control(content: str) -> list[int]:
        ids = (await model.render(Conversation([{"role": "user", "content": content}]))).ids
        return [i for i in ids if i in added]

    assert await control(f"a{spelt}b") == await control("a") != []
    model.close()


@needs_assets
async def test_A4_the_templates_tokens_do_not_depend_on_the_message(tmp_path: Path) -> None:
    template = tmp_path / "template.jinja"
    template.write_text("{% for m in messages %}User: {{ m.content }}{% endfor %} Answer:")
    model = TextModel.load(tokenizer_folder("mistral-7b-v0.3", tmp_path), str(template), 1)

    async def ids(content: str) -> list[int]:
        return list((await model.render(Conversation([{"role": "user", "content": content}]))).ids)

    one, other = await ids("a"), await ids("a <")
    assert one[:2] == other[:2] == (await ids("<"))[:2] and one[-2:] == other[-2:]
    model.close()


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"], ids="A10-{}".format)
async def test_reasoning_reaches_the_template(serve_template: With, name: str) -> None:
    seen = "{% for m in messages %}{{ m.content }}({{ m.reasoning_content }},{{ m.reasoning }})"
    client = await serve_template(seen + "{% endfor %}")
    text = await templated(client, {"role": "assistant", "content": "x", name: "why"}, HI)
    assert text == "x(why,why)hi(,)"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        pytest.param(NO_DEVELOPER, "[system]Be brief.[user]hi", id="b13"),
        pytest.param(NO_DEVELOPER.replace("('sys", "('developer', 'sys"),
                     "[developer]Be brief.[user]hi", id="b13-known"),
    ],
)  # fmt: skip
async def test_developer(serve_template: With, template: str, expected: str) -> None:
    client = await serve_template(template)
    assert await templated(client, {"role": "developer", "content": "Be brief."}, HI) == expected


@pytest.mark.parametrize("name", ["self", "context", "environment", "name", "args", "range"])
async def test_L1_names_of_variables(serve_template: With, name: str) -> None:
    client = await serve_template("{{ " + name + " }}")
    body = {"messages": [HI], "chat_template_kwargs": {name: "x"}, "max_tokens": 1}
    status, answer = await client.post(CHAT, body)
    reserved = name in ("self", "range")
    assert status == (422 if reserved else 200)
    assert not reserved or f"must not set `{name}`" in answer["error"]["message"]


async def test_L1_variables_reach_the_template(serve_template: With) -> None:
    client = await serve_template("{{ enable_thinking }}{{ of.me[0] }}")
    variables = {"enable_thinking": False, "of": {"me": [1]}}
    assert await templated(client, HI, chat_template_kwargs=variables) == "False1"


@pytest.mark.parametrize("name", ["comparisons", "times"])
async def test_H2_hostile_template(serve_template: With, name: str) -> None:
    """Four at once, and the server goes on answering."""
    armed = "{% if messages[0].content == 'now' %}" + HOSTILE[name] + "{% endif %}fine"
    client = await serve_template(armed)
    attack = {"messages": [{"role": "user", "content": "now"}]}
    attacks = [asyncio.create_task(client.post(CHAT, attack)) for _ in range(4)]
    late = 0.0
    while not all(attack.done() for attack in attacks):
        asked = time.monotonic()
        assert (await client.get("/health"))[0] == 200
        late = max(late, time.monotonic() - asked)
        await asyncio.sleep(0.02)
    assert late < 1  # the event loop has nothing to do with it
    for status, answer in await asyncio.gather(*attacks):
        assert (status, answer["error_type"]) in ((422, "template_error"), (429, "overloaded"))
    assert await templated(client, HI) == "fine"


@pytest.mark.parametrize("name", ["loops", "deep blocks"])
def test_H2_hostile_folder(tmp_path: Path, name: str) -> None:
    assert name in TIME or name not in MEMORY
    folder = write_folder(tmp_path, byte_level(), HOSTILE[name])
    with pytest.raises(ValueError, match="chat template of .*: (the template takes|syntax error)"):
        TextModel.load(folder, None, 2)


async def test_T_loops_are_limited(serve_template: With, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that renders gives up by itself, before the kernel's limit ends it."""
    armed = "{% if messages[0].content == 'now' %}" + TIME["loops"] + "{% endif %}"
    client = await serve_template(armed)
    now = {"role": "user", "content": "now"}
    status, answer = await client.post(CHAT, {"messages": [now]})
    assert (status, answer["error_type"]) == (422, "template_error")
    assert answer["error"]["message"] == "Template error: the template takes too long"
    renderer = client.text._chat_template.quick.renderers[0]
    renderer.render(_job(HI), 1, 60)
    answers, raise_from = [], errors.raise_from
    monkeypatch.setattr(errors, "raise_from", lambda got: answers.append(got) or raise_from(got))
    with pytest.raises(TemplateError):
        renderer.render(_job(now), 0.1, 60)
    # It said so itself: neither the kernel nor the router had to end it.
    assert answers and "error" in answers[0]
