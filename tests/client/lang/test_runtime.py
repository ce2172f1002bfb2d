"""A server of the program's own, in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

import penstock
import penstock.lang as sgl

PROGRAM = """
import sys
import penstock.lang as sgl

@sgl.function
def tool_use(s, question):
    s += "To answer this question: " + question + ", "
    s += "I need to use a " + sgl.gen("tool", choices=["calculator", "search engine"])

sgl.set_default_backend(sgl.Runtime())
states = tool_use.run_batch([{"question": "What is 5 + 6?"}, {"question": "Who is Ada?"}])
for state in states:
    print(state["tool"], *state.get_meta_info("tool")["prompt_logprob"])
if len(sys.argv) > 1:
    raise SystemError(sys.argv[1])
"""


@pytest.mark.parametrize("end", ["", pytest.param("crash", marks=pytest.mark.full)])
def test_one_line_starts_a_server_that_leaves_nothing_behind(tmp_path: Path, end: str) -> None:
    """Nobody shuts it down: neither a program that ends, nor one that fails."""
    (tmp_path / "program.py").write_text(PROGRAM)
    rest = tmp_path / "rest"
    rest.mkdir()
    with subprocess.Popen(
        [sys.executable, tmp_path / "program.py", *filter(None, [end])],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(rest), "MARK": str(tmp_path)},
    ) as program:
        said, errors = program.communicate(timeout=120)
    assert program.returncode == bool(end) and ("Traceback" in errors) == bool(end), errors
    lines = [line.rsplit(" ", 2) for line in said.splitlines()]
    assert len(lines) == 2
    for choice, *scores in lines:
        assert choice in ("calculator", "search engine") and max(map(float, scores)) < 0
    assert list(rest.iterdir()) == []
    assert not [one for one in psutil.process_iter() if marked(one, str(tmp_path))]


def marked(process: psutil.Process, mark: str) -> bool:
    """Whether it descends from a program, which gave it this in its environment."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE and process.environ().get("MARK") == mark
    except psutil.Error:
        return False


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
