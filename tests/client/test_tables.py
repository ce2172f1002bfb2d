"""docs/offline.md names every argument and field that there is, and no other; each is tried."""

from __future__ import annotations

import dataclasses
import inspect
import re
import warnings
from pathlib import Path
from typing import Any

import pytest

from penstock import LLM, AsyncLLM, SamplingParams
from penstock.engine_args import HONOURED, NOTICES, OWN, REFUSED, TUNING, launcher_options
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
    signature = set(inspect.signature(LLM.__init__).parameters) - {"self", "arguments", "model"}
    assert named(text) == set(HONOURED) | OWN | set(NOTICES) | signature
    refused = re.search(r"^Refused[^:]*: (.*)\. The error", text, re.MULTILINE)
    assert refused and set(re.findall(r"`(\w+)`", refused[1])) == set(REFUSED)
    tuning = text.rsplit("\n\n", 1)[1]
    assert set(re.findall(r"`(\w+)`", tuning)) == TUNING
    kinds = [set(HONOURED), OWN, set(NOTICES), set(REFUSED), TUNING]
    assert sum(map(len, kinds)) == len(set.union(*kinds))


SAMPLES: dict[str, tuple[Any, Any]] = {  # what a program gives, and what the launcher reads
    "revision": ("v1", "v1"),
    "served_model_name": (["a", "b"], ("a", "b")),
    "tensor_parallel_size": (2, 2),
    "dtype": ("half", "float16"),
    "quantization": ("fp8", "fp8"),
    "load_format": ("safetensors", "auto"),
    "download_dir": ("/tmp", "/tmp"),
    "gpu_memory_utilization": (0.5, 0.5),
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
