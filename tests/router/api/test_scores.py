"""Log-probabilities of prompts: how many a request may ask for, and who writes them."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from penstock_router.api import leaving_turns, scores, sglang_scores, tgi_answer
from router.api.conftest import beside_only

IDS = [5 + i % 20 for i in range(48)]
SGLANG: dict[str, Any] = {
    "input_ids": IDS,
    "sampling_params": {"max_new_tokens": 0},
    "return_logprob": True,
    "logprob_start_len": 0,
}
OPENAI: dict[str, Any] = {"prompt": IDS, "max_tokens": 1}


@beside_only
@pytest.mark.parametrize(
    ("path", "body", "most", "field"),
    [
        ("/generate", {**SGLANG, "top_logprobs_num": 3}, 192, "input_ids"),
        ("/generate", {**SGLANG, "token_ids_logprob": [5, 6, 7]}, 192, "input_ids"),
        ("/v1/completions", {**OPENAI, "prompt_logprobs": 3}, 192, "prompt"),
        ("/v1/completions", {**OPENAI, "echo": True, "logprobs": 3}, 192, "prompt"),
        ("/v1/completions", {**OPENAI, "prompt_logprobs": 0, "n": 4}, 192, "prompt"),
    ],
)
async def test_they_are_counted(
    serve: Any, monkeypatch: pytest.MonkeyPatch, path: str, body: Any, most: int, field: str
) -> None:
    monkeypatch.setattr(scores, "MOST_SCORES", most)
    client = await serve()
    status, answer = await client.post(path, body)
    assert status == 200, answer
    status, answer = await client.post(path, {**body, field: [*IDS, 5]})
    assert status == 422 and f"at most {most} log-probabilities of prompts" in str(answer)
    assert "Given: 196" in str(answer)


@beside_only
async def test_tokens_that_a_client_names_count_in_its_answer_too(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scores, "MOST_SCORES", 30)
    client = await serve()
    body = {**SGLANG, "logprob_start_len": -1, "token_ids_logprob": [5] * 5}
    for tokens, status in ((3, 200), (4, 422)):
        wanted = {"sampling_params": {"max_new_tokens": tokens, "n": 2}}
        seen, answer = await client.post("/generate", {**body, **wanted})
        assert seen == status, answer


@beside_only
async def test_a_stream_repeats_few(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "MOST_STREAMED", 48)
    client = await serve()
    status, _ = await client.stream("/generate", {**SGLANG, "stream": True})
    assert status == 200
    status, answer = await client.post("/generate", {**SGLANG, "stream": True, "n": 1,
                                                    "top_logprobs_num": 1})  # fmt: skip
    assert status == 422 and "at most 48 log-probabilities" in str(answer)


@beside_only
async def test_many_are_written_by_a_thread(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    client = await serve()
    seen: list[bool] = []
    write = sglang_scores.Scored.extend

    def extending(*given: Any) -> None:
        seen.append(threading.current_thread() is threading.main_thread())
        write(*given)

    monkeypatch.setattr(sglang_scores.Scored, "extend", extending)
    body = {
        **SGLANG,
        "top_logprobs_num": 20,
        "token_ids_logprob": [5] * 20,
    }
    status, answer = await client.post("/generate", body)
    assert status == 200 and len(answer["meta_info"]["input_token_logprobs"]) == len(IDS)
    assert seen and not any(seen)


@beside_only
@pytest.mark.parametrize("tokens", [10, 48])
async def test_many_of_tgi_too(serve: Any, monkeypatch: pytest.MonkeyPatch, tokens: int) -> None:
    client = await serve()
    seen: list[bool] = []
    write = tgi_answer._prefill

    def writing(*given: Any) -> Any:
        seen.append(threading.current_thread() is threading.main_thread())
        return write(*given)

    monkeypatch.setattr(tgi_answer, "_prefill", writing)
    monkeypatch.setattr(leaving_turns, "FEW", 30)
    parameters = {"max_new_tokens": 1, "decoder_input_details": True, "details": True}
    status, answer = await client.post(
        "/generate", {"inputs": "a" * tokens, "parameters": parameters}
    )
    assert status == 200, answer
    assert len(answer["details"]["prefill"]) >= tokens and seen == [tokens < 30]
