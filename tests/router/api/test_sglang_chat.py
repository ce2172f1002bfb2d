"""SGLang's /generate with conversations, tools and reasoning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken

from penstock_router.text import Conversation, TextModel
from penstock_router.text.marked import MarkedText
from router.api.conftest import Serve, beside_only
from support.small_text import byte_level, write_folder

from .test_tools import ASK, CALL, TEMPLATE, WEATHER, saying


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> TextModel:
    tokenizer = byte_level()
    tokenizer.add_tokens(
        [AddedToken(t, special=False) for t in ("</think>", "<tool_call>", "</tool_call>")]
    )
    folder: Path = write_folder(tmp_path_factory.mktemp("chat"), tokenizer, TEMPLATE)
    return TextModel.load(folder, None, 1)


async def generate(client: Any, expected: int = 200, /, **body: Any) -> Any:
    status, answer = await client.post("/generate", {"sampling_params": {}, **body})
    assert status == expected, answer
    return answer


async def test_the_prompt_is_the_templates_and_text_behind_it(
    serve: Serve, text: TextModel
) -> None:
    client = await serve(saying(text, "x"))
    await generate(client, messages=ASK, add_generation_prompt=True, text="It is ")
    [request] = client.engine.requests
    rendered = await text.render(Conversation(ASK, add_generation_prompt=True))
    assert text.tokenizer.decode(list(request.prompt), skip_special_tokens=False) == (
        rendered.text + "It is "
    )


async def test_several_texts_behind_one_conversation(serve: Serve, text: TextModel) -> None:
    client = await serve(saying(text, "x"))
    answers = await generate(
        client,
        messages=ASK,
        text=["a", "bb"],
        sampling_params={"max_new_tokens": 0},
        return_logprob=True,
        logprob_start_len=3,
    )
    assert [len(a["meta_info"]["input_token_logprobs"]) + 3 for a in answers] == [
        len(request.prompt) for request in client.engine.requests
    ]


async def test_an_open_turn_of_the_users(serve: Serve, text: TextModel) -> None:
    client = await serve(saying(text, "x"))
    messages = [{"role": "user", "content": ""}]
    await generate(client, messages=messages, continue_final_message=True, text="I am")
    shown = text.tokenizer.decode(list(client.engine.requests[0].prompt), skip_special_tokens=False)
    assert shown == "<|im_start|>user\nI am"


@beside_only
async def test_nothing_behind_a_conversation_is_a_control_token(
    serve: Serve, text: TextModel
) -> None:
    client = await serve(saying(text, "x"))
    await generate(client, messages=ASK, text="<|im_end|>")
    await generate(client, text="<|im_end|>")  # as raw prompts have it
    token = text.tokenizer.encode("<|im_end|>", add_special_tokens=False)
    behind, raw = client.engine.requests
    assert behind.prompt[-1:].tolist() != token and list(raw.prompt[-1:]) == token


@beside_only
async def test_calls_are_read(serve: Serve, text: TextModel) -> None:
    said = f"<think>hm</think>I look. {CALL}"
    client = await serve(saying(text, said))
    for how in ({"messages": ASK}, {"text": "Weather?"}):
        answer = await generate(client, tools=[WEATHER], **how)
        meta = answer["meta_info"]
        assert answer["text"] == said
        assert (meta["content"], meta["reasoning_content"]) == ("I look.", "hm")
        [call] = meta["tool_calls"]
        assert json.loads(call["function"]["arguments"]) == {"city": "Paris", "days": 2}
        assert call["function"]["name"] == "get_weather" and call["type"] == "function"
    assert client.engine.requests[0].grammar is not None


@beside_only
async def test_a_stream_has_them_at_its_end(serve: Serve, text: TextModel) -> None:
    client = await serve(saying(text, CALL))
    body = {"text": "Weather?", "tools": [WEATHER], "stream": True}
    _, stream = await client.stream("/generate", body)
    events = [json.loads(e.removeprefix("data: ")) for e in stream.split("\n\n")[:-2]]
    assert events[-1]["meta_info"]["tool_calls"] and events[-1]["text"] == CALL
    assert all(CALL.startswith(event["text"]) for event in events)
    assert not any("tool_calls" in event["meta_info"] for event in events[:-1])


@beside_only
async def test_reasoning_that_the_template_began(serve: Serve, text: TextModel) -> None:
    client = await serve(saying(text, "hm</think>Paris"))
    answer = await generate(
        client,
        messages=ASK,
        chat_template_kwargs={"enable_thinking": True},
        separate_reasoning=True,
    )
    meta = answer["meta_info"]
    assert (meta["reasoning_content"], meta["content"]) == ("hm", "Paris")
    assert meta["tool_calls"] == [] and answer["text"] == "hm</think>Paris"


@beside_only
async def test_without_asking_nothing_is_read(serve: Serve, text: TextModel) -> None:
    client = await serve(saying(text, CALL))
    answer = await generate(client, messages=ASK)
    assert "content" not in answer["meta_info"] and client.engine.requests[0].grammar is None


@beside_only
@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"messages": ASK, "input_ids": [5]}, "`input_ids` must not be given with `messages`"),
        ({"messages": [{"content": "x"}]}, "messages.0"),
        ({"messages": ["x"]}, "`messages.0`"),
        ({"text": "a", "tools": [{"type": "function"}]}, "`tools.0.function`"),
        ({"text": "a", "tools": [WEATHER], "tool_choice": "maybe"}, "`tool_choice` must be"),
        ({"messages": ASK, "chat_template_kwargs": {"self": 1}}, "`chat_template_kwargs`"),
        ({"messages": []}, "exactly one of `text` and `input_ids`"),
        ({"messages": ASK, "text": "a " * 3000}, "`messages` must have less than"),
    ],
)
async def test_what_is_refused(
    serve: Serve, text: TextModel, body: dict[str, Any], sentence: str
) -> None:
    client = await serve(saying(text, "x"))
    answer = await generate(client, 422, **body)
    assert sentence in answer["error"]["message"]
    assert not client.engine.requests
    await client.quiet()


@beside_only
async def test_the_model_info_says_so(serve: Serve, text: TextModel) -> None:
    client = await serve(saying(text, "x"))
    _, body = await client.get("/model_info")
    assert {"messages", "tools", "separate_reasoning"} <= set(json.loads(body)["extensions"])


@pytest.mark.parametrize(
    ("page", "runs"),
    [
        (MarkedText("ab"), ((2, 3),)),
        (MarkedText("ab", ((0, 1),)), ((0, 1), (2, 3))),
        (MarkedText("ab", ((0, 1), (1, 2))), ((0, 1), (1, 3))),  # runs never touch
    ],
)
def test_a_text_behind_a_page(page: MarkedText, runs: Any) -> None:
    assert page.followed_by("c") == MarkedText("abc", runs)
    assert page.followed_by("") is page
