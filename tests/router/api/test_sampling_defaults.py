"""What generation_config.json of a model changes, and where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from penstock_router.request import Sampling

HI = [{"role": "user", "content": "hi"}]
FILE = {
    "do_sample": False,
    "temperature": 0.625,
    "top_k": 20,
    "top_p": 0.875,
    "min_p": None,
    "repetition_penalty": 1,
    "max_length": 20,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "generation_config.json").write_text(json.dumps(FILE))
    return tmp_path


def sampled(client: Any) -> Sampling:
    sampling: Sampling = client.engine.requests[-1].sampling
    return sampling


async def test_they_hold_where_a_request_says_nothing(serve: Any, folder: Path) -> None:
    client = await serve(model_path=str(folder))
    for path, body in (
        ("/v1/chat/completions", {"messages": HI}),
        ("/v1/completions", {"prompt": "hi"}),
        ("/v1/completions", {"prompt": "hi", "temperature": None, "top_k": None}),
        ("/invocations", {"messages": HI}),
    ):
        status, _ = await client.post(path, body)
        sampling = sampled(client)
        assert (status, sampling.temperature, sampling.top_k) == (200, 0.625, 20), path
        assert (sampling.top_p, sampling.min_p, sampling.repetition_penalty) == (0.875, 0.0, 1.0)


async def test_a_request_wins(serve: Any, folder: Path) -> None:
    client = await serve(model_path=str(folder))
    asked = {"temperature": 0, "top_k": -1, "top_p": 1.0, "messages": HI}
    assert (await client.post("/v1/chat/completions", asked))[0] == 200
    sampling = sampled(client)
    assert (sampling.temperature, sampling.top_k, sampling.top_p) == (0.0, 0, 1.0)
    asked = {"do_sample": False, "prompt": "hi"}
    assert (await client.post("/v1/completions", asked))[0] == 200
    assert sampled(client).temperature == 0.0


async def test_tgi_routes_have_those_of_tgi(serve: Any, folder: Path) -> None:
    client = await serve(model_path=str(folder))
    for body in ({"inputs": "hi"}, {"inputs": "hi", "parameters": {"do_sample": True}}):
        assert (await client.post("/generate", body))[0] == 200
        sampling = sampled(client)
        assert (sampling.temperature, sampling.top_k, sampling.top_p) == (1.0, 0, 1.0)


async def test_none_switches_them_off(serve: Any, folder: Path) -> None:
    client = await serve(model_path=str(folder), generation_config="none")
    assert (await client.post("/v1/completions", {"prompt": "hi"}))[0] == 200
    sampling = sampled(client)
    assert (sampling.temperature, sampling.top_k, sampling.top_p) == (1.0, 0, 1.0)


async def test_info_shows_them(serve: Any, folder: Path) -> None:
    client = await serve(model_path=str(folder))
    shown = orjson.loads((await client.get("/info"))[1])
    assert shown["generation_config"] == "auto"
    assert shown["sampling_defaults"] == {
        "temperature": 0.625, "top_k": 20, "top_p": 0.875, "repetition_penalty": 1
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("top_p", 1.5), ("top_p", 0), ("temperature", "hot"), ("top_k", 2.5), ("min_p", [1])],
)
async def test_a_value_that_no_request_may_have_is_ignored_and_named(
    serve: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, wrong: object
) -> None:
    values = {"repetition_penalty": 1.1, name: wrong}
    (tmp_path / "generation_config.json").write_text(json.dumps(values))
    client = await serve(model_path=str(tmp_path))
    shown = orjson.loads((await client.get("/info"))[1])
    assert shown["sampling_defaults"] == {"repetition_penalty": 1.1}
    assert any("generation_config.json" in m and f"`{name}`" in m for m in caplog.messages)


@pytest.mark.parametrize("file", ["auto", "none"])
async def test_what_the_operator_gives_wins(serve: Any, folder: Path, file: str) -> None:
    given = {"temperature": 0.25, "min_p": 0.125}
    client = await serve(
        model_path=str(folder), generation_config=file, override_generation_config=given
    )
    assert (await client.post("/v1/completions", {"prompt": "hi"}))[0] == 200
    sampling = sampled(client)
    assert (sampling.temperature, sampling.min_p) == (0.25, 0.125)
    assert sampling.top_k == (20 if file == "auto" else 0)


@pytest.mark.parametrize(
    ("given", "named"),
    [({"temperature": -1}, "`temperature`"), ({"max_new_tokens": 5}, "has `max_new_tokens`")],
)
async def test_what_no_request_may_have_is_no_option(
    serve: Any, folder: Path, given: dict[str, float], named: str
) -> None:
    with pytest.raises(ValueError, match=f"--override-generation-config .*{named}"):
        await serve(model_path=str(folder), override_generation_config=given)
