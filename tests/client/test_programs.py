"""What users of vLLM type, with the import changed: on the demo model."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest

from client.conftest import DEMO
from support.checkpoints import make_checkpoint
from support.integer_checkpoints import quantise_checkpoint

QUESTIONS = [
    "What distinguishes a mutex from a semaphore? One paragraph.",
    "Write a Python function that returns the n-th prime.",
    "Which planets have rings?",
    "Translate 'Good morning, friend' into Italian, Polish and Korean.",
]


def test_a_batch_of_prompts(capfd: pytest.CaptureFixture[str]) -> None:
    import penstock

    assert re.fullmatch(r"\d+\.\d+\.\d+", penstock.__version__)
    from penstock import LLM, SamplingParams

    llm = LLM(model=str(DEMO))
    sampling_params = SamplingParams(
        temperature=0.7,
        top_p=0.9,
        max_tokens=32,
        stop=["\n\n"],
        presence_penalty=0.1,
    )
    outputs = llm.generate(QUESTIONS, sampling_params)
    assert [output.prompt for output in outputs] == QUESTIONS
    for output in outputs:
        text = output.outputs[0].text
        assert isinstance(text, str) and "\n\n" not in text
        assert output.outputs[0].finish_reason in ("stop", "length")
    del llm
    shown = capfd.readouterr().err
    assert re.search(
        r"Penstock ready: http://127\.0\.0\.1:\d+ \(model \S+, 1 x \S+, "
        r"\d+\.\d of \d+\.\d GiB used.*, float32 weights, largest batch \d+; start .*\)",
        shown,
    )
    assert "Processed prompts: 100%" in shown and "tokens/s" in shown


def test_an_engine_with_many_arguments(tmp_path: Path) -> None:
    """A checkpoint in GPTQ's format, on two shards."""
    from penstock import LLM

    checkpoint = make_checkpoint(tmp_path / "model", "llama3")
    quantise_checkpoint(checkpoint, "gptq", tmp_path / "twin")
    with pytest.warns(UserWarning) as warned:
        llm = LLM(
            model=str(checkpoint),
            quantization="gptq",
            tensor_parallel_size=2,
            gpu_memory_utilization=0.85,
            max_model_len=96,
            dtype="float16",
            trust_remote_code=True,
            enforce_eager=True,
            swap_space=4,
            quiet=True,
        )
    with llm:
        facts = llm.server.facts
        assert (facts["world_size"], facts["max_total_tokens"]) == (2, 96)
        assert (facts["dtype"], facts["weights"]) == ("float16", "gptq")
        [output] = llm.generate("The sky is", use_tqdm=False)
        assert output.finished and output.outputs[0].token_ids
    sentences = [str(one.message) for one in warned]
    assert any("trust_remote_code has no effect" in sentence for sentence in sentences)
    assert any("swap_space has no effect" in sentence for sentence in sentences)


def test_a_format_that_the_checkpoint_has_not() -> None:
    from penstock import LLM, ServerError

    for code in (False, True):  # what it says of code is for those who asked for some
        with (
            pytest.raises(ServerError, match="squeezellm|quantize") as raised,
            warnings.catch_warnings(action="ignore"),
        ):
            LLM(model=DEMO, quantization="squeezellm", quiet=True, trust_remote_code=code)
        assert ("trust_remote_code" in str(raised.value)) is code
