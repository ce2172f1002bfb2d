"""A server of the program's own, in one line."""

from __future__ import annotations

from typing import Any

import pytest

import penstock
import penstock.lang as sgl


def test_a_wrong_model_is_said() -> None:
    with pytest.raises(penstock.ServerError, match="nowhere"):
        sgl.Runtime("/nowhere/at/all", device="cpu")


def test_sglangs_names_of_options(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    class Started(Exception):
        pass

    def start(model: str, **options: Any) -> None:
        given.update(options, model=model)
        raise Started

    monkeypatch.setattr("penstock.lang.runtime.EmbeddedServer", start)
    with pytest.raises(Started):
        sgl.Runtime("m", tp_size=2, mem_fraction_static=0.8, disable_radix_cache=True, dtype="x")
    assert given == {
        "model": "m",
        "num_shard": 2,
        "cuda_memory_fraction": 0.8,
        "disable_prefix_cache": True,
        "dtype": "x",
        "max_requests_per_client": 0,
        "names": {
            "num_shard": "tp_size",
            "cuda_memory_fraction": "mem_fraction_static",
            "disable_prefix_cache": "disable_radix_cache",
            "dtype": "dtype",
        },
    }


def test_a_wrong_option_has_the_programs_name() -> None:
    with pytest.raises(
        penstock.ServerError, match="^tp_size: must be a whole number from 1 to 64, not '0'"
    ):
        sgl.Runtime(tp_size=0)


@pytest.fixture
def engine(runtime: sgl.Runtime) -> sgl.Engine:
    """On the server that runs already."""
    engine = sgl.Engine.__new__(sgl.Engine)
    engine.runtime = runtime
    return engine


async def test_the_engine(engine: sgl.Engine) -> None:
    question, parameters = "What is the capital of France?", {"temperature": 0}
    one = engine.generate(question, parameters)
    assert "Paris" in one["text"] and one["meta_info"]["finish_reason"]["type"] == "stop"
    several = engine.generate([question] * 2, [parameters] * 2, return_logprob=True)
    assert [answer["text"] for answer in several] == [one["text"]] * 2
    assert several[0]["meta_info"]["output_token_logprobs"]
    ids = engine.generate(question, parameters, return_prompt_token_ids=True)["prompt_token_ids"]
    assert engine.generate(input_ids=ids, sampling_params=parameters)["text"] == one["text"]
    *_, last = engine.generate(question, parameters, stream=True)
    assert last["text"] == one["text"]
    assert (await engine.async_generate(question, parameters))["text"] == one["text"]
    events = await engine.async_generate(question, parameters, stream=True)
    assert [event["text"] async for event in events][-1] == one["text"]
    assert engine.get_server_info()["context_length"] > 0
    engine.flush_cache()
    with pytest.raises(sgl.BackendError, match="text"):
        engine.generate()
