"""Tools and reasoning of /v1/chat/completions, over an engine that says what it is told."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken

from penstock_router.api import fields
from penstock_router.api.schema import parse
from penstock_router.text import TextModel
from router.api.conftest import beside_only
from support.fake_engine import EOS, FakeEngine, limits
from support.small_text import byte_level, write_folder

TEMPLATE = """\
{%- if tools %}<|im_start|>system
# Tools{% for tool in tools %}
{{ tool | tojson }}{% endfor %}
<tool_call>
{"name": …, "arguments": …}
</tool_call><|im_end|>
{% endif %}
{%- for message in messages %}<|im_start|>{{ message.role }}
{% if message.reasoning_content %}<think>{{ message.reasoning_content }}</think>{% endif -%}
{{ message.content }}
{%- for call in message.tool_calls or [] %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{%- endfor %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking %}<think>
{% elif enable_thinking is defined %}<think>

</think>

{% endif %}{% endif %}"""
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
}
TIME = {"type": "function", "function": {"name": "get_time"}}
ASK = [{"role": "user", "content": "What is the weather in Paris?"}]
CALL = (
    '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris", "days": 2}}\n</tool_call>'
)
SECOND = '<tool_call>\n{"name": "get_time", "arguments": {}}\n</tool_call>'


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> TextModel:
    tokenizer = byte_level()
    tokenizer.add_tokens(
        [AddedToken(t, special=False) for t in ("</think>", "<tool_call>", "</tool_call>")]
    )
    folder: Path = write_folder(tmp_path_factory.mktemp("tools"), tokenizer, TEMPLATE)
    return TextModel.load(folder, None, 1)


def saying(text: TextModel, answer: str, ends: bool = True) -> FakeEngine:
    ids = text.tokenizer.encode(answer, add_special_tokens=False)
    room = limits(max_input_tokens=2000, max_total_tokens=4000, max_batch_prefill_tokens=2000,
                  max_batch_total_tokens=8000, max_position_embeddings=4000)  # fmt: skip
    return FakeEngine(room, script=[*ids, EOS] if ends else ids)


async def ask(client: Any, **extra: Any) -> dict[str, Any]:
    status, body = await client.post("/v1/chat/completions", {"messages": ASK, **extra})
    assert status == 200, body
    return body


async def streamed(client: Any, **extra: Any) -> tuple[dict[str, Any], str]:
    """The deltas of a stream, put together as OpenAI's clients do, and the finish reason."""
    body = {"messages": ASK, "stream": True, **extra}
    status, events = await client.stream("/v1/chat/completions", body)
    assert status == 200, events
    message: dict[str, Any] = {"content": "", "reasoning": "", "tool_calls": []}
    reason = ""
    for line in events.splitlines():
        if not line.startswith("data: {"):
            continue
        for choice in json.loads(line[6:])["choices"]:
            delta = choice["delta"]
            assert delta.get("reasoning") == delta.get("reasoning_content")
            message["content"] += delta.get("content") or ""
            message["reasoning"] += delta.get("reasoning") or ""
            for call in delta.get("tool_calls") or []:
                if "id" in call:
                    assert call["index"] == len(message["tool_calls"])
                    message["tool_calls"].append(dict(call, function=dict(call["function"])))
                else:
                    open_call = message["tool_calls"][call["index"]]["function"]
                    open_call["arguments"] += call["function"]["arguments"]
            reason = choice["finish_reason"] or reason
    return message, reason


async def test_calls_whole_and_streamed(serve: Any, text: TextModel) -> None:
    client = await serve(saying(text, f"I look.\n{CALL}\n{SECOND}"))
    choice = (await ask(client, tools=[WEATHER, TIME]))["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    message = choice["message"]
    assert message["content"] == "I look."
    names = [call["function"]["name"] for call in message["tool_calls"]]
    assert names == ["get_weather", "get_time"]
    assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == {
        "city": "Paris",
        "days": 2,
    }
    whole = [call["function"] for call in message["tool_calls"]]
    assert len({call["id"] for call in message["tool_calls"]}) == 2
    joined, reason = await streamed(client, tools=[WEATHER, TIME])
    assert reason == "tool_calls"
    assert joined["content"] == "I look."
    assert [call["function"] for call in joined["tool_calls"]] == whole


async def test_the_template_shows_tools_calls_and_results(serve: Any, text: TextModel) -> None:
    client = await serve(saying(text, "Sunny."))
    call = {"id": "call_1", "type": "function",
            "function": {"name": "get_weather", "arguments": '{"city":"Paris"}'}}  # fmt: skip
    messages = [
        *ASK,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "22 degrees"},
    ]
    answer = await ask(client, messages=messages, tools=[WEATHER])
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "Sunny."}
    assert answer["choices"][0]["finish_reason"] == "stop"
    prompt = text.tokenizer.decode(client.engine.requests[0].prompt, skip_special_tokens=False)
    assert '"name": "get_weather"' in prompt and "The weather of a city" in prompt
    assert '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}' in prompt
    assert "<|im_start|>tool\n22 degrees" in prompt


async def test_none_hides_tools(serve: Any, text: TextModel) -> None:
    client = await serve(saying(text, CALL))
    answer = await ask(client, tools=[WEATHER], tool_choice="none")
    assert "tool_calls" not in answer["choices"][0]["message"]
    assert answer["choices"][0]["message"]["content"] == CALL
    prompt = text.tokenizer.decode(client.engine.requests[0].prompt)
    assert "get_weather" not in prompt


@beside_only
async def test_an_unknown_function_is_text(serve: Any, text: TextModel) -> None:
    client = await serve(saying(text, CALL))
    choice = (await ask(client, tools=[TIME]))["choices"][0]
    assert choice["message"]["content"] == CALL
    assert choice["finish_reason"] == "stop"


@beside_only
async def test_a_call_that_is_cut_says_length(serve: Any, text: TextModel) -> None:
    client = await serve(saying(text, CALL))
    choice = (await ask(client, tools=[WEATHER], max_tokens=30))["choices"][0]
    assert choice["finish_reason"] == "length"
    arguments = choice["message"]["tool_calls"][0]["function"]["arguments"]
    assert '{"city": "Paris", "days": 2}'.startswith(arguments)


@beside_only
async def test_a_stop_sequence_does_not_end_calls(serve: Any, text: TextModel) -> None:
    client = await serve(saying(text, f"one Paris two{CALL}"))
    choice = (await ask(client, tools=[WEATHER], stop=["Paris"]))["choices"][0]
    assert choice["message"] == {"role": "assistant", "content": "one "}
    client = await serve(saying(text, f"one Pari{CALL} and"))
    for message in (
        (await ask(client, tools=[WEATHER], stop=["Paris"]))["choices"][0]["message"],
        (await streamed(client, tools=[WEATHER], stop=["Paris"]))[0],
    ):
        assert message["content"].startswith("one Pari")
        assert message["tool_calls"][0]["function"]["name"] == "get_weather"


@pytest.mark.parametrize(
    ("answer", "extra", "reasoning", "content"),
    [
        ("<think>\nI think.\n</think>\n\nParis.", {}, "I think.", "Paris."),
        ("I think.\n</think>\n\nParis.", {"enable_thinking": True}, "I think.", "Paris."),
        ("<think>I think.</think>Paris.", {"reasoning_effort": "low"}, "I think.", "Paris."),
        ("Paris.", {"enable_thinking": False}, "", "Paris."),
        ("Paris.", {"reasoning_effort": "none"}, "", "Paris."),
        ("I think", {"chat_template_kwargs": {"enable_thinking": True}}, "I think", ""),
        ("Paris </think> it is", {}, "", "Paris  it is"),
    ],
)
@beside_only
async def test_reasoning(
    serve: Any, text: TextModel, answer: str, extra: Any, reasoning: str, content: str
) -> None:
    client = await serve(saying(text, answer))
    body = await ask(client, **extra)
    message = body["choices"][0]["message"]
    assert message.get("reasoning_content", "") == message.get("reasoning", "") == reasoning
    assert message["content"] == content
    assert body["choices"][0]["finish_reason"] == "stop"
    count = body["usage"]["completion_tokens_details"]["reasoning_tokens"]
    assert (count > 0) == bool(reasoning)
    assert count <= body["usage"]["completion_tokens"]
    joined, _ = await streamed(client, **extra)
    assert (joined["reasoning"], joined["content"]) == (reasoning, content)


@beside_only
async def test_a_call_ends_reasoning_that_is_open(serve: Any, text: TextModel) -> None:
    client = await serve(saying(text, f"I think.\n{CALL}"))
    message = (await ask(client, tools=[WEATHER], enable_thinking=True))["choices"][0]["message"]
    assert message["reasoning"] == "I think."
    assert message["content"] is None
    assert message["tool_calls"][0]["function"]["name"] == "get_weather"


@beside_only
async def test_reasoning_can_be_left_out(serve: Any, text: TextModel) -> None:
    client = await serve(saying(text, "<think>I think.</think>Paris."))
    body = await ask(client, include_reasoning=False)
    assert body["choices"][0]["message"] == {"role": "assistant", "content": "Paris."}


@beside_only
async def test_the_older_shape(serve: Any, text: TextModel) -> None:
    client = await serve(saying(text, CALL))
    function = WEATHER["function"]
    choice = (await ask(client, functions=[function]))["choices"][0]
    assert choice["finish_reason"] == "function_call"
    assert choice["message"]["function_call"]["name"] == "get_weather"
    messages = [
        *ASK,
        {"role": "assistant", "content": None, "function_call": choice["message"]["function_call"]},
        {"role": "function", "name": "get_weather", "content": "22 degrees"},
    ]
    await ask(client, messages=messages, functions=[function])
    prompt = text.tokenizer.decode(client.engine.requests[-1].prompt, skip_special_tokens=False)
    assert "<tool_call>" in prompt and "<|im_start|>tool\n22 degrees" in prompt


@beside_only
async def test_tgis_shape(serve: Any, text: TextModel) -> None:
    client = await serve(saying(text, CALL))
    function = {k: v for k, v in WEATHER["function"].items() if k != "parameters"}
    tool = {"type": "function",
            "function": {**function, "arguments": WEATHER["function"]["parameters"]}}  # fmt: skip
    extra = {"tools": [tool], "tool_choice": "get_weather", "tool_prompt": "Do call it."}
    choice = (await ask(client, **extra))["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    prompt = text.tokenizer.decode(client.engine.requests[0].prompt)
    assert "Paris?\n---\nDo call it." in prompt and '"parameters": {"type": "object"' in prompt


def a_tool(**function: Any) -> dict[str, Any]:
    return {"tools": [{"type": "function", "function": {"name": "f", **function}}]}


def parameters(**schema: Any) -> dict[str, Any]:
    return a_tool(parameters={"type": "object", **schema})


FIRST = "`tools[0].function"


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        ({"tools": [{"type": "web_search", "function": {"name": "f"}}]}, "`tools.0.type`"),
        ({"tools": [{"type": "function"}]}, "missing field `tools.0.function`"),
        ({"tools": [{"function": {}}]}, "missing field `tools.0.function.name`"),
        (a_tool(name="a b"), f"{FIRST}.name` must be 1 to 128 letters"),
        (a_tool(name=""), f"{FIRST}.name` must be 1 to 128 letters"),
        (a_tool(parameters=[]), "`tools.0.function.parameters`"),
        (a_tool(parameters={"type": "string"}), f"{FIRST}.parameters.type` must be `object`"),
        (parameters(properties=[]), f"{FIRST}.parameters.properties` must map names to schemas"),
        (
            parameters(properties={"a": {"type": "text"}}),
            f"{FIRST}.parameters.properties.a.type` must be one of object",
        ),
        (parameters(required="a"), f"{FIRST}.parameters.required` must be a list of names"),
        (
            parameters(properties={"a": {"enum": []}}),
            f"{FIRST}.parameters.properties.a.enum` must be a list of values",
        ),
        (
            parameters(properties={"a": {"pattern": "("}}),
            f"{FIRST}.parameters.properties.a.pattern` must be a regular expression",
        ),
        (
            parameters(properties={"a": {"$ref": "#/$defs/b"}}),
            f"{FIRST}.parameters.properties.a.$ref` must point into the same schema",
        ),
        (
            a_tool(
                strict=True,
                parameters={"type": "object", "properties": {"a": {"not": {"type": "null"}}}},
            ),
            f"{FIRST}.parameters.properties.a.not` cannot be enforced, and `strict` asks for it",
        ),
        ({"tools": [WEATHER, WEATHER]}, "`tools[1]`: there is another tool named `get_weather`"),
        ({"tools": [WEATHER], "tool_choice": "any"}, "`tool_choice` must be `none`, `auto`"),
        (
            {"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "g"}}},
            "`tool_choice` must name a tool of `tools`. Given: `g`",
        ),
        ({"tool_choice": "required"}, "`tool_choice` requires a call"),
        ({"reasoning_effort": "LOW!"}, "`reasoning_effort`"),
        (
            {"messages": [{"role": "user", "content": "x", "tool_calls": [
                {"id": "1", "function": {"name": "f", "arguments": "{}"}}]}]},
            "`messages.0.tool_calls` is only for messages of the assistant",
        ),
        (
            {"messages": [*ASK, {"role": "assistant", "tool_calls": [
                {"id": "1", "function": {"name": "f", "arguments": "[1]"}}]}]},
            "arguments` must be a JSON object as a string",
        ),
        ({"messages": [{"role": "assistant"}]}, "missing field `messages.0.content`"),
    ],
)  # fmt: skip
@beside_only
async def test_refusals(serve: Any, extra: dict[str, Any], sentence: str) -> None:
    client = await serve()
    status, body = await client.post("/v1/chat/completions", {"messages": ASK, **extra})
    assert status == 422
    assert sentence in body["error"]["message"]
    assert not client.engine.requests


@beside_only
async def test_hostile_definitions_are_cheap_to_refuse(serve: Any) -> None:
    client = await serve(payload_limit=2_000_000)
    deep: dict[str, Any] = {}
    for _ in range(90):  # a body may have 200 levels
        deep = {"type": "object", "properties": {"a": deep}}
    wide = {"type": "object", "properties": {f"a{i}": {"type": "string"} for i in range(10_000)}}
    for schema, sentence in ((deep, "schemas deep"), (wide, "at most 4096 keywords")):
        status, body = await client.post(
            "/v1/chat/completions", {"messages": ASK, **a_tool(parameters=schema)}
        )
        assert status == 422 and sentence in body["error"]["message"]


@beside_only
async def test_arguments_in_strings_are_counted_as_the_body_is(serve: Any) -> None:
    """What stands in strings is no part of the body's own count."""
    client = await serve(payload_limit=2_000_000)
    many = json.dumps({"a": [[]] * 40_000})
    call = {"id": "1", "function": {"name": "f", "arguments": many}}
    for calls, status in (([call], 200), ([call, call], 422)):
        spoken = [{"role": "assistant", "tool_calls": calls}]
        message = {"messages": [*ASK, *spoken], "max_tokens": 1}
        seen, body = await client.post("/v1/chat/completions", message)
        assert seen == status or "template" in str(body)
        assert ("`messages[].tool_calls[].function.arguments` must have" in str(body)) == (
            status == 422
        )


@beside_only
async def test_schemas_are_weighed_before_they_are_read(serve: Any) -> None:
    client = await serve(payload_limit=2_000_000)
    tools = [
        {"type": "function", "function": {"name": f"f{i}", "parameters": {"title": "a" * 60_000}}}
        for i in range(5)
    ]
    flat = [{"type": "function", **tool["function"]} for tool in tools]
    other = [{"name": tool["name"], "input_schema": tool["parameters"]} for tool in flat]
    for path, body in (
        ("/v1/chat/completions", {"messages": ASK, "tools": tools}),
        ("/v1/responses", {"input": "hi", "tools": flat}),
        ("/v1/messages", {"messages": ASK, "max_tokens": 1, "tools": other}),
    ):
        status, answer = await client.post(path, body)
        assert status == 422 and "must have at most 262144 bytes" in str(answer), path


@beside_only
async def test_long_bodies_are_checked_off_the_event_loop(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await serve(payload_limit=2_000_000)
    seen = []

    def parsing(*given: Any) -> Any:
        seen.append(threading.current_thread() is threading.main_thread())
        return parse(*given)

    monkeypatch.setattr(fields, "parse", parsing)
    for size in (10, 20_000):
        body = {"messages": [{"role": "user", "content": "a" * size}], "max_tokens": 1}
        await client.post("/v1/chat/completions", body)
    assert seen == [True, False]


@beside_only
async def test_calls_are_held_to_a_grammar(serve: Any, text: TextModel) -> None:
    client = await serve(saying(text, CALL))
    await ask(client, tools=[WEATHER])
    grammar = client.engine.requests[0].grammar
    assert grammar == client.engine.grammars[0]
    assert "get_weather" in grammar.text
    await ask(client)
    assert client.engine.requests[1].grammar is None


@beside_only
async def test_a_grammar_that_cannot_be_made(serve: Any, text: TextModel) -> None:
    """It refuses those who count on it, and no others."""
    client = await serve(saying(text, CALL))
    schema = {**WEATHER["function"]["parameters"], "title": "bad"}
    bad = {"type": "function", "function": {**WEATHER["function"], "parameters": schema}}
    choice = (await ask(client, tools=[bad]))["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert client.engine.requests[0].grammar is None
    strict = {"type": "function", "function": {**bad["function"], "strict": True}}
    for extra in ({"tools": [bad], "tool_choice": "required"}, {"tools": [strict]}):
        body = {"messages": ASK, **extra}
        status, answer = await client.post("/v1/chat/completions", body)
        assert status == 422 and "it is bad" in answer["error"]["message"]


@beside_only
async def test_what_is_not_enforced_is_named(serve: Any, text: TextModel) -> None:
    client = await serve(saying(text, CALL))
    schema = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}
    async with client.session.post(
        client.url + "/v1/chat/completions", json={"messages": ASK, **a_tool(parameters=schema)}
    ) as response:
        assert response.status == 200
        assert "uniqueItems" in response.headers["x-ignored-fields"]
