"""docs/offline.md names every argument and field that there is, and no other; each is tried."""

from __future__ import annotations

import dataclasses
import inspect
import re
import warnings
from pathlib import Path
from typing import Any

import pytest

from client.vllm_names import BEAM_SEARCH, ENGINE, SAMPLING
from penstock import LLM, AsyncLLM, BeamSearchParams, SamplingParams
from penstock.embedded import ServerError
from penstock.engine_args import HONOURED, OWN, launcher_options, own_arguments
from penstock.server_log import renamed
from penstock.vllm_arguments import NOTICES, REFUSED, TUNING
from penstock_launcher.command_line import parse

PAGE = (Path(__file__).parents[2] / "docs" / "offline.md").read_text()


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def named(text: str) -> set[str]:
    """Names in the first column of tables."""
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def test_every_field_of_sampling_params() -> None:
    fields = {field.name for field in dataclasses.fields(SamplingParams)}
    assert named(section("SamplingParams")) == fields


def test_every_argument() -> None:
    text = section("Arguments of LLM")
    signature = set(inspect.signature(LLM.__init__).parameters) - {"self", "arguments"}
    assert named(text) == set(HONOURED) | set(OWN) | set(NOTICES) | signature
    refused = re.search(r"^Refused[^:]*: (.*)\. The error", text, re.MULTILINE)
    assert refused and set(re.findall(r"`(\w+)`", refused[1])) == set(REFUSED)
    tuning = text.rsplit("\n\n", 1)[1]
    assert set(re.findall(r"`(\w+)`", tuning)) == TUNING
    kinds = [set(HONOURED), set(OWN), set(NOTICES), set(REFUSED), TUNING]
    assert sum(map(len, kinds)) == len(set.union(*kinds))


def test_every_argument_of_vllm() -> None:
    """Each is known, and its default there asks for nothing that is not had here."""
    known = {*HONOURED, *OWN, *NOTICES, *REFUSED, *TUNING, "model", "trust_remote_code"}
    assert set(ENGINE) <= known
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        given = {n: v for n, v in ENGINE.items() if n not in ("model", "trust_remote_code")}
        own_arguments(given)
        ours, theirs = launcher_options({}), launcher_options(given)
    assert {n for n in ours if ours[n] != theirs[n]} <= {
        "dtype",
        "load_format",
        "generation_config",
    }


def test_every_field_of_vllms_parameters() -> None:
    assert {field.name for field in dataclasses.fields(SamplingParams)} >= set(SAMPLING)
    assert SamplingParams(**SAMPLING).body() == SamplingParams(top_k=0).body()
    beams = BeamSearchParams(beam_width=2, max_tokens=1, **BEAM_SEARCH)
    assert beams == BeamSearchParams(beam_width=2, max_tokens=1)


UNBUILDABLE = {
    "extra_args": {"a": 1},
    "thinking_token_budget": 5,
    "repetition_detection": object(),
    "routed_experts_prompt_start": 3,
    "prompt_logprob_token_ids": [[1]],
    "prompt_logprob_start": 2,
    "trace_decode_token_ids": [1],
}


@pytest.mark.parametrize("name", sorted(SamplingParams._UNBUILDABLE))
def test_fields_that_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} is not supported: "):
        SamplingParams(**{name: UNBUILDABLE[name]})


SAMPLES: dict[str, tuple[Any, Any]] = {  # what a program gives, and what the launcher reads
    "revision": ("v1", "v1"),
    "served_model_name": (["a", "b"], ("a", "b")),
    "tensor_parallel_size": (2, 2),
    "dtype": ("half", "float16"),
    "quantization": ("fp8", "fp8"),
    "load_format": ("safetensors", "auto"),
    "download_dir": ("/tmp", "/tmp"),
    "gpu_memory_utilization": (0.5, 0.5),
    "hf_overrides": ({"rope_theta": 5e5}, {"rope_theta": 5e5}),
    "rope_scaling": ({"factor": 2.0}, {"factor": 2.0}),
    "block_size": (32, 32),
    "max_model_len": ("2K", 2048),
    "max_num_seqs": (7, 7),
    "max_num_batched_tokens": ("8k", 8000),
    "max_logprobs": (50, 50),
    "enforce_eager": (True, (0,)),
    "enable_prefix_caching": (False, True),
    "generation_config": ("vllm", "none"),
    "tool_call_parser": ("hermes", "hermes"),
    "reasoning_parser": ("qwen3", "qwen3"),
    "device": ("cpu", "cpu"),
    "kv_cache_memory_bytes": (1 << 30, 1 << 30),
    "port": (3111, 3111),
    "otlp_traces_endpoint": ("http://127.0.0.1:4317", "http://127.0.0.1:4317"),
}


@pytest.mark.parametrize("name", sorted(HONOURED.keys() - {"api_key", "kv_cache_dtype"}))
def test_the_launcher_understands(name: str) -> None:
    from penstock.embedded import _flags

    given, read = SAMPLES[name]
    option = HONOURED[name].option
    options, _ = parse(_flags({option: launcher_options({name: given})[option]}), {})
    assert getattr(options, option) == read


def test_defaults_that_are_not_the_launchers() -> None:
    given = {
        name: value for name, value in launcher_options({}).items() if value not in (None, False)
    }
    assert given == {"num_shard": 1, "cuda_memory_fraction": 0.92, "max_top_n_tokens": 20}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_refused_arguments(name: str) -> None:
    neutral, reason = REFUSED[name]
    for value in neutral:
        launcher_options({name: value})
    with pytest.raises(ValueError, match=re.escape(f"{name}='something else' {reason}")):
        launcher_options({name: "something else"})


def test_arguments_without_effect() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert launcher_options(dict.fromkeys(TUNING, "anything")) == launcher_options({})
        assert launcher_options(dict.fromkeys(NOTICES)) == launcher_options({})
    for name, sentence in NOTICES.items():
        with pytest.warns(UserWarning, match=re.escape(f"{name} {sentence}")):
            launcher_options({name: 4})


def test_unknown_arguments() -> None:
    for engine in (LLM, AsyncLLM):
        with pytest.raises(TypeError, match="has no argument 'tensor_paralel_size'"):
            engine("x", tensor_paralel_size=2)
    with pytest.raises(ValueError, match="tokenizer must be the model's own"):
        LLM("x", tokenizer="y")


@pytest.mark.parametrize(
    ("given", "error", "sentence"),
    [
        ({"model": 5}, TypeError, "model must be text or a path, not int"),
        ({"seed": "x"}, TypeError, "seed must be a whole number, not str"),
        ({"override_generation_config": 3}, TypeError, "override_generation_config must be a dict"),
        ({"hf_token": 5}, TypeError, "hf_token must be text, not int"),
        ({"quiet": "no"}, TypeError, "quiet must be True or False, not str"),
        ({"launcher_options": 3}, TypeError, "launcher_options must be a dict, not int"),
        ({"enforce_eager": "x"}, ValueError, "enforce_eager must be True or False. Given: 'x'"),
        ({"enable_prefix_caching": 2}, ValueError, "enable_prefix_caching must be True or False"),
    ],
)
def test_wrong_arguments(given: dict[str, Any], error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(sentence)}"):
        LLM(**given)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"max_num_seqs": 0}, "max_num_seqs: must be a whole number from 1 to 1000000, not '0'"),
        ({"max_num_seqs": "many"}, "max_num_seqs: must be a whole number"),
        ({"gpu_memory_utilization": 1.5}, "gpu_memory_utilization: must be a number above 0"),
        ({"quantization": "foo"}, "quantization: must be one of fp8, "),
        ({"port": -5}, "port: must be a whole number from 0 to 65535"),
        ({"launcher_options": {"num_shard": 0}}, "num_shard: must be a whole number"),
        ({"launcher_options": {"no_such": 1}}, "unrecognized arguments: no_such=1"),
    ],
)
def test_wrong_values_are_named_as_the_program_names_them(
    given: dict[str, Any], sentence: str
) -> None:
    """By the launcher, which is what knows the rules: nothing is started."""
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}") as caught:
        LLM(device="cpu", quiet=True, **given)
    assert isinstance(caught.value, ServerError)


def test_names_of_options_in_sentences() -> None:
    names = {"model_id": "model", "max_total_tokens": "max_model_len"}
    for sentence, shown in (
        ("--model-id 'x' is no folder", "model 'x' is no folder"),
        ("`--max-total-tokens` sets the limit", "`max_model_len` sets the limit"),
        ("argument -p/--port: must", "argument -p/--port: must"),
        ("a--model-id, --model-identity", "a--model-id, --model-identity"),
    ):
        assert renamed(sentence, names) == shown
