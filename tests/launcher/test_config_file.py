"""`--config FILE`: the same options by the same rules, below the command line."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest

from penstock_launcher.command_line import parse
from penstock_launcher.options import OPTIONS, Options


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "serve.yaml"


def refused(*argv: str) -> str:
    stderr = io.StringIO()
    with contextlib.redirect_stderr(stderr), pytest.raises(SystemExit) as end:
        parse(argv, {})
    assert end.value.code == 2
    return stderr.getvalue().splitlines()[-1]


def test_a_file_of_options(path: Path) -> None:
    path.write_text(
        "model: org/name\nport: 81\ntensor_parallel_size: 2\nmax-model-len: 8k\nsharded: true\n"
        "json-output: true\nenforce-eager: false\nserved-model-name: [a, b]\n"
        "gpu-memory-utilization: 0.5\napi-key: 123\n"
    )
    options, notices = parse(["--config", str(path)], {"PORT": "1"})
    assert notices == []
    given = {name: getattr(options, name) for name in (option.name for option in OPTIONS)}
    changed = {name: value for name, value in given.items() if value != getattr(Options(), name)}
    assert changed == {
        "model_id": "org/name",
        "port": 81,
        "num_shard": 2,
        "max_total_tokens": 8000,
        "sharded": True,
        "json_output": True,
        "served_model_name": ("a", "b"),
        "cuda_memory_fraction": 0.5,
        "api_key": ("123",),
    }


def test_the_command_line_wins_whatever_it_is_called(path: Path) -> None:
    path.write_text("tp: 2\nserved-model-name: a\nport: 1\n")
    argv = ["--config", str(path), "--num-shard", "4", "--served-model-name", "b", "-p", "3"]
    options, _ = parse(argv, {})
    assert (options.num_shard, options.served_model_name, options.port) == (4, ("b",), 3)


def test_an_empty_file_says_nothing(path: Path) -> None:
    path.write_text("# nothing yet\n")
    assert parse([f"--config={path}"], {}) == (Options(), [])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("port: http", "argument -p/--port: must be a whole number"),
        ("no-such: 1", "line 1: no-such is not an option of launcher"),
        ("tp: 1\nnum-shard: 1", "line 2: num-shard: tp (line 1) and num-shard say the same"),
        ("json-output: 3", "json-output must be true or false, not '3'"),
        ("port: {a: 1}", "port must be text, a number, true, false or a list"),
        ("port:", "port must be text"),
        ("config: other.yaml", "config is not an option"),
        ("1: 2", "1 is not an option"),
        ("[a]", "must hold options"),
        ("a: [", "is not YAML"),
        ("port: !!python/object/apply:os.getpid []", "port must be text"),
        ("trust-remote-code: true", "nothing in a model folder is ever executed"),
        ("x" * (1 << 20) + "x", "at most 1048576 bytes"),
    ],
)
def test_what_is_wrong_names_the_file(text: str, words: str, path: Path) -> None:
    path.write_text(text)
    message = refused("--config", str(path))
    assert words in message and str(path) in message


def test_a_file_that_is_missing(path: Path) -> None:
    assert f"--config {path} cannot be read: No such file" in refused("--config", str(path))


def test_what_vllm_and_sglang_call_otherwise(path: Path) -> None:
    path.write_text(
        "enable-chunked-prefill: true\nenable_lora: false\nswap_space: 4\nenable-metrics: true\n"
        "compilation-config: {mode: 3}\nhf-overrides:\n  rope_scaling: {factor: 4.0}\n"
        "default_chat_template_kwargs: '{\"a\": 1}'\ncudagraph-capture-sizes: [1, 2]\nport: 7\n"
    )
    options, notices = parse(["--config", str(path), "--port", "8"], {})
    assert options == Options(
        port=8,
        metric_names=("sglang",),
        cuda_graphs=(1, 2),
        hf_overrides={"rope_scaling": {"factor": 4.0}},
        default_chat_template_kwargs={"a": 1},
    )
    assert len(notices) == 5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("enable_lora: true", "--enable-lora of vLLM is not built yet"),
        ("port: {a: 1}", "line 1: port must be text, a number, true, false or a list of them"),
        ("hf-overrides: {a: 2026-01-01}", "line 1: hf-overrides must hold what JSON has"),
        ("hf-overrides: {a: .nan}", "line 1: hf-overrides: argument --hf-overrides: must be"),
        ("hf-overrides: [1]", "must be a JSON object"),
    ],
)
def test_objects_and_flags_that_cannot_be(path: Path, text: str, said: str) -> None:
    path.write_text(text)
    assert said in refused("--config", str(path))
