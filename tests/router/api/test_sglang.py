"""SGLang's /generate and the routes beside it, over a fake engine."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from penstock_router.api.service import VERSION
from penstock_router.request import FinishReason
from support.fake_engine import EOS, FakeEngine

from .conftest import Client, Serve, beside_only

PROMPT = "ab cd"


def body(prompt: object = PROMPT, /, **fields: Any) -> dict[str, Any]:
    parameters = fields.pop("sampling_params", {"max_new_tokens": 3})
    return {"text": prompt, "sampling_params": parameters, **fields}


async def answered(client: Client, request: dict[str, Any]) -> Any:
    status, answer = await client.post("/generate", request)
    assert status == 200, answer
    return answer


async def events(client: Client, request: dict[str, Any]) -> list[dict[str, Any]]:
    status, text = await client.stream("/generate", {**request, "stream": True})
    assert status == 200 and text.endswith("data: [DONE]\n\n"), text
    lines = text.removesuffix("data: [DONE]\n\n").split("\n\n")[:-1]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


async def test_one_answer(serve: Serve) -> None:
    client = await serve(FakeEngine(script=(10, 11, EOS), cached_tokens=2))
    answer = await answered(client, body(rid="r1", return_prompt_token_ids=True))
    [request] = client.engine.requests
    meta = answer["meta_info"]
    assert answer["output_ids"] == [10, 11, EOS]
    assert answer["text"] == client.text.token_text(10) + client.text.token_text(11)
    assert answer["prompt_token_ids"] == list(request.prompt)
    assert meta["id"] == "r1" and request.name == "r1"
    assert meta["finish_reason"] == {"type": "stop", "matched": EOS}
    assert meta["prompt_tokens"] == len(request.prompt) and meta["completion_tokens"] == 3
    assert meta["cached_tokens"] == 2 and meta["cached_tokens_details"] == {"device": 2, "host": 0}
    assert meta["e2e_latency"] > 0
    await client.quiet()


async def test_sglangs_defaults(serve: Serve) -> None:
    """It samples, and 128 tokens at most or what there is room for."""
    client = await serve(FakeEngine(script=(10, EOS)))
    await answered(client, {"text": PROMPT})
    await answered(client, {"text": PROMPT, "sampling_params": {"max_new_tokens": None}})
    for request in client.engine.requests:
        assert request.sampling.temperature == 1.0 and not request.sampling.logprobs
        assert request.max_new_tokens == min(128, 96 - len(request.prompt))


async def test_tgis_body_is_tgis(serve: Serve) -> None:
    client = await serve()
    status, answer = await client.post("/generate", {"inputs": "x", "parameters": {}})
    assert status == 200 and set(answer) == {"generated_text"}
    status, answer = await client.post("/generate", {})
    assert status == 422 and "inputs" in answer["error"]


async def test_a_batch_with_fields_of_each(serve: Serve) -> None:
    client = await serve(FakeEngine(script=(10, 11, 12)))
    request = body(
        ["a", "b c"],
        sampling_params=[{"max_new_tokens": 1, "temperature": 0}, {"max_new_tokens": 2, "n": 2}],
        return_logprob=[False, True],
        logprob_start_len=[-1, 1],
        top_logprobs_num=[0, 1],
        token_ids_logprob=[[], [7, 8]],
        rid=["x", "y"],
    )
    first, *others = await answered(client, request)
    assert first["output_ids"] == [10] and "input_token_logprobs" not in first["meta_info"]
    assert [answer["meta_info"]["id"] for answer in (first, *others)] == ["x", "y_0", "y_1"]
    for answer in others:
        meta, prompt = answer["meta_info"], client.engine.requests[1].prompt
        assert [entry[1] for entry in meta["input_token_logprobs"]] == list(prompt[1:])
        assert meta["input_token_logprobs"][0] == [None, prompt[1], None]
        assert meta["input_top_logprobs"][0] is None
        assert meta["input_token_ids_logprobs"][1:] == [
            [[-3.0, 7, None], [-3.0, 8, None]] for _ in prompt[2:]
        ]
        assert [entry[1] for entry in meta["output_token_logprobs"]] == [10, 11]
        assert meta["output_token_logprobs_length"] == 2
        assert meta["output_top_logprobs"] == [[[-0.25, 10, None]], [[-0.25, 11, None]]]
        assert meta["output_token_ids_logprobs"] == 2 * [[[-3.0, 7, None], [-3.0, 8, None]]]


async def test_scoring_without_a_start_shows_the_whole_prompt(serve: Serve) -> None:
    client = await serve()
    answer = await answered(
        client,
        {
            "input_ids": [[5, 6, 7], [8]],
            "sampling_params": {"max_new_tokens": 0},
            "return_logprob": True,
            "return_text_in_logprobs": True,
        },
    )
    meta = [one["meta_info"] for one in answer]
    text = client.text.token_text
    assert meta[0]["input_token_logprobs"] == [
        [None, 5, text(5)], [-0.5, 6, text(6)], [-0.5, 7, text(7)],
    ]  # fmt: skip
    assert meta[1]["input_token_logprobs"] == [[None, 8, text(8)]]
    assert all(one["text"] == "" and one["output_ids"] == [] for one in answer)
    assert meta[0]["finish_reason"] == {"type": "length", "length": 0}


async def test_the_frontends_select_has_a_value_in_each_entry(serve: Serve) -> None:
    client = await serve()
    select = {
        "text": ["ab cd", "ab ce"],
        "sampling_params": {"max_new_tokens": 0, "temperature": 0},
        "return_logprob": True,
        "return_text_in_logprobs": True,
        "logprob_start_len": 1,
    }
    agent = {"User-Agent": "Python-urllib/3.12"}
    _, for_frontend = await client.post("/generate", select, headers=agent)
    _, for_others = await client.post("/generate", select)
    for ours, theirs in zip(for_frontend, for_others, strict=True):
        entries = theirs["meta_info"]["input_token_logprobs"]
        assert entries[0][0] is None
        assert ours["meta_info"]["input_token_logprobs"] == entries[1:]


async def test_a_certain_token_is_not_zero(serve: Serve) -> None:
    """SGLang's frontend leaves zeros out of its means."""

    class Certain(FakeEngine):
        def _step(self, job: Any) -> None:
            job.ended = not job.listener.token(10, 0.0, [], 1)
            self._finish(job, FinishReason.LENGTH, 1)

    client = await serve(Certain())
    answer = await answered(client, body(return_logprob=True))
    assert answer["meta_info"]["output_token_logprobs"] == [[-1e-09, 10, None]]


async def test_a_stream_holds_all_text_so_far(serve: Serve) -> None:
    client = await serve(FakeEngine(script=(10, 11, 12, EOS)))
    parameters = {"max_new_tokens": 9, "temperature": 0, "sampling_seed": 2}
    request = body(sampling_params=parameters, return_logprob=True)
    seen = await events(client, request)
    whole = await answered(client, request)
    for before, event in zip(seen, seen[1:], strict=False):
        assert event["text"].startswith(before["text"])
        assert event["output_ids"][: len(before["output_ids"])] == before["output_ids"]
        assert before["meta_info"]["finish_reason"] is None
    for event in seen:
        meta = event["meta_info"]
        assert meta["completion_tokens"] == len(event["output_ids"])
        assert meta["output_token_logprobs_length"] == len(meta["output_token_logprobs"])
    last, meta = seen[-1], whole["meta_info"]
    assert (last["text"], last["output_ids"]) == (whole["text"], whole["output_ids"])
    assert last["meta_info"] | {"id": 0, "e2e_latency": 0} == meta | {"id": 0, "e2e_latency": 0}


async def test_a_streamed_batch_names_its_places(serve: Serve) -> None:
    client = await serve(FakeEngine(script=(10, 11, 12)))
    seen = await events(client, body(["a", "b"], sampling_params={"max_new_tokens": 3, "n": 2}))
    last = {event["index"]: event for event in seen}
    assert sorted(last) == [0, 1, 2, 3]
    assert all(event["meta_info"]["completion_tokens"] == 3 for event in last.values())


async def test_stop_strings_are_trimmed_or_kept(serve: Serve) -> None:
    client = await serve(FakeEngine(script=(10, 11, 12)))
    stop = client.text.token_text(11)
    parameters = {"max_new_tokens": 5, "stop": stop}
    trimmed = await answered(client, body(sampling_params=parameters))
    kept = await answered(client, body(sampling_params={**parameters, "no_stop_trim": True}))
    assert trimmed["text"] + stop == kept["text"]
    assert trimmed["output_ids"] == kept["output_ids"] == [10, 11]
    assert trimmed["meta_info"]["finish_reason"] == {"type": "stop", "matched": stop}


@pytest.mark.parametrize("stream", [False, True])
async def test_an_expression_ends_an_answer(serve: Serve, stream: bool) -> None:
    """Behind the token that completes it; as with SGLang it stays part of the text."""
    client = await serve()
    whole = "The capital of France and France"
    client.engine.script = client.text.tokenizer.encode(f"{whole}</s>")
    for patterns, least, text, matched in (
        ("F[a-z]{3}", 0, "The capital of France", "F[a-z]{3}"),
        (["nothing", "(?i)FRANCE"], 0, "The capital of France", "(?i)FRANCE"),
        ("F[a-z]{3}", 4, whole, "F[a-z]{3}"),
        ("F[0-9]", 0, whole, client.engine.script[-1]),
        ("", 0, whole, client.engine.script[-1]),
    ):
        wanted = body(sampling_params={"stop_regex": patterns, "min_new_tokens": least})
        answer = (await events(client, wanted))[-1] if stream else await answered(client, wanted)
        assert answer["text"] == text, patterns
        assert answer["meta_info"]["finish_reason"] == {"type": "stop", "matched": matched}


REFUSED = {
    "text": ({"text": "a", "input_ids": [1]}, "exactly one of `text` and `input_ids`"),
    "empty": (body([]), "at least 1 item"),
    "input_ids": ({"input_ids": [[1], []]}, "`input_ids` must be a list of token ids"),
    "token": ({"input_ids": [700]}, "token ids >= 0 and < 700"),
    "length": (body(["a", "b"], rid=["x"]), "`rid` must have one value for each of 2 prompts"),
    "start": (body(return_logprob=True, logprob_start_len=90), "`logprob_start_len` must be below"),
    "given": (body(return_logprob=True, token_ids_logprob=[700]), "`token_ids_logprob` must hold"),
    "lora": (body(lora_path="x"), "`lora_path` is not supported"),
    "hidden": (body(return_hidden_states=True), "`return_hidden_states` is not supported"),
    "image": (body(image_data="x"), "`image_data` is not supported"),
    "stop_regex": (body(sampling_params={"stop_regex": ["a", "(?=a)"]}), "look-around"),
    "empty_regex": (body(sampling_params={"stop_regex": "a*"}), "must not match the empty text"),
    "many": (body(sampling_params={"stop_regex": ["a"] * 9}), "`sampling_params.stop_regex`"),
    "top_k": (body(sampling_params={"top_k": 0}), "`top_k` must be -1 or strictly positive"),
    "temperature": (body(sampling_params={"temperature": -1}), "temperature"),
    "long": (body("a" * 500), "`text`"),
    "two": (
        body(sampling_params={"regex": "a", "json_schema": "{}"}),
        "`sampling_params.json_schema`, `sampling_params.regex`",
    ),
    "regex": (body(sampling_params={"regex": ""}), "`sampling_params.regex` must be a regular"),
    "n": (body(sampling_params={"n": 129}), "`sampling_params.n`"),
}  # fmt: skip


@beside_only
@pytest.mark.parametrize("name", REFUSED)
async def test_what_cannot_be_done_is_refused(serve: Serve, name: str) -> None:
    client = await serve()
    request, sentence = REFUSED[name]
    status, answer = await client.post("/generate", request)
    assert status == 422 and sentence in answer["error"]["message"], answer
    assert not client.engine.requests
    await client.quiet()


async def test_more_than_the_permits_wait_for_their_turn(serve: Serve) -> None:
    """There are 16; others are told that the server is overloaded, SGLang's clients wait."""
    client = await serve(FakeEngine(hold=True))
    many = asyncio.create_task(answered(client, body(["x"] * 40)))
    while client.engine.live < 16:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.02)
    assert len(client.engine.jobs) == 16
    status, _ = await client.post("/generate", {"inputs": "x"})
    assert status == 429
    client.engine.release()
    assert len(await many) == 40
    await client.quiet()


async def test_a_client_that_leaves_gives_its_turns_back(serve: Serve) -> None:
    client = await serve(FakeEngine(hold=True))
    task = asyncio.create_task(answered(client, body(["x"] * 40)))
    while client.engine.live < 16:
        await asyncio.sleep(0.001)
    task.cancel()
    await client.quiet()
    client.engine.release()
    assert len(await answered(client, body(["x"] * 3))) == 3


@pytest.mark.parametrize("abort", [{"rid": "r"}, {"abort_all": True}])
async def test_an_aborted_request_ends_where_it_is(serve: Serve, abort: dict[str, Any]) -> None:
    client = await serve(FakeEngine(hold=True))
    task = asyncio.create_task(answered(client, body(["a", "b"], rid="r")))
    while client.engine.live < 2:
        await asyncio.sleep(0.001)
    status, _ = await client.get("/abort_request")
    assert status == 405
    async with client.session.post(client.url + "/abort_request", json=abort) as answer:
        assert answer.status == 200
    for one in await task:
        assert one["meta_info"]["finish_reason"]["type"] == "abort" and one["text"] == ""
    await client.quiet()


async def test_the_cache_is_flushed_when_nothing_runs(serve: Serve) -> None:
    client = await serve(FakeEngine(hold=True))
    async with client.session.post(client.url + "/flush_cache") as answer:
        assert answer.status == 200 and client.engine.emptied == 1
    task = asyncio.create_task(answered(client, body()))
    while not client.engine.live:
        await asyncio.sleep(0.001)
    status, text = await client.get("/flush_cache")
    assert status == 400 and b"requests run or wait" in text and client.engine.emptied == 1
    waiting = asyncio.create_task(client.get("/flush_cache?timeout=30"))
    await asyncio.sleep(0.06)
    client.engine.release()
    await task
    assert (await waiting)[0] == 200 and client.engine.emptied == 2
    assert (await client.get("/flush_cache?timeout=1e9"))[0] == 400


async def test_what_vllm_calls_these(serve: Serve) -> None:
    client = await serve(FakeEngine(hold=True))

    async def load() -> int:
        return int(json.loads((await client.get("/load"))[1])["server_load"])

    assert json.loads((await client.get("/version"))[1]) == {"version": VERSION}
    async with client.session.post(client.url + "/reset_prefix_cache") as answer:
        assert answer.status == 200 and client.engine.emptied == 1
    assert await load() == 0
    task = asyncio.create_task(answered(client, body(sampling_params={"n": 2})))
    while client.engine.live < 2:
        await asyncio.sleep(0.001)
    assert await load() == 2
    async with client.session.post(client.url + "/reset_prefix_cache") as answer:
        assert answer.status == 400
    client.engine.release()
    await task
    await client.quiet()


async def test_health_by_a_token(serve: Serve) -> None:
    client = await serve()
    assert (await client.get("/health_generate"))[0] == 200
    assert [request.max_new_tokens for request in client.engine.requests] == [1]
    client.drain()
    while (await client.get("/health_generate"))[0] != 503:
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("regex", "[ab]+"),
        ("json_schema", '{"type": "integer"}'),
        ("json_schema", {"type": "integer"}),
        ("json_schema", "$$ANY$$"),
        ("ebnf", 'root ::= "a" | "b"'),
    ],
)
async def test_an_answer_is_held_to_a_grammar(serve: Serve, name: str, value: Any) -> None:
    client = await serve()
    await answered(client, body(sampling_params={"max_new_tokens": 3, name: value}))
    [request] = client.engine.requests
    assert request.grammar is not None and client.engine.grammars == [request.grammar]


@beside_only
async def test_what_the_server_is(serve: Serve) -> None:
    client = await serve()
    for path in ("/model_info", "/get_model_info", "/server_info", "/get_server_info"):
        status, text = await client.get(path)
        assert status == 200 and json.loads(text)["model_path"] == "some/model"
    for path in ("/encode", "/open_session", "/v1/embeddings", "/start_profile"):
        assert (await client.get(path))[0] == 404


@beside_only
async def test_keys_are_asked_for(serve: Serve) -> None:
    client = await serve(api_key=("k",))
    for path in ("/model_info", "/health_generate", "/flush_cache", "/server_info"):
        assert (await client.get(path))[0] == 401
    for path in ("/generate", "/abort_request", "/detokenize", "/flush_cache"):
        assert (await client.post(path, {}))[0] == 401


@beside_only
async def test_requests_are_counted(serve: Serve) -> None:
    client = await serve()
    await answered(client, body(["a", "b"]))
    await client.post("/generate", body(lora_path="x"))
    assert await client.count("tgi_request_count") == 2
    assert await client.count("tgi_request_success") == 1


@beside_only
async def test_tokens_of_texts_and_back(serve: Serve) -> None:
    """In vLLM's shape; TGI's is told by its field."""
    client = await serve()
    status, ours = await client.post("/tokenize", {"prompt": "ab", "return_token_strs": True})
    _, theirs = await client.post("/tokenize", {"inputs": "ab"})
    assert status == 200 and ours["tokens"] == [token["id"] for token in theirs]
    assert ours["count"] == len(ours["tokens"]) == len(ours["token_strs"])
    assert ours["max_model_len"] == 96
    status, back = await client.post("/detokenize", {"tokens": ours["tokens"]})
    assert status == 200 and back["prompt"].endswith("ab")
    plain = {"prompt": "ab", "add_special_tokens": False}
    _, plain = await client.post("/tokenize", plain)
    assert plain["token_strs"] is None
    assert (await client.post("/detokenize", {"tokens": plain["tokens"]}))[1] == {"prompt": "ab"}
    status, answer = await client.post("/detokenize", {"tokens": [700]})
    assert status == 422 and "`tokens` must hold" in answer["error"]["message"]
    messages = [{"role": "user", "content": "ab"}]
    status, chat = await client.post("/tokenize", {"messages": messages})
    _, rendered = await client.post("/chat_tokenize", {"messages": messages})
    assert status == 200
    assert chat["tokens"] == [token["id"] for token in rendered["tokenize_response"]]
