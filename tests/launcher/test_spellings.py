"""vLLM's and SGLang's names of options, each beside Penstock's own; command lines people type."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest

from penstock_launcher.command_line import parse
from penstock_launcher.options import OPTIONS, Options
from penstock_launcher.spellings import SPELLINGS, Spelling
from penstock_launcher.unsupported import UNSUPPORTED

SEEDS = Path(__file__).parents[3] / "shared" / "seeds"
BY_NAME = {option.name: option for option in OPTIONS}
TEXTS = {
    "model_id": ("org/name", "org/name"),
    "hostname": ("localhost", "127.0.0.1"),
    "num_shard": ("2", 2),
    "quantize": ("awq_marlin", "awq"),
    "max_total_tokens": ("4096", 4096),
    "cuda_memory_fraction": ("0.90", 0.9),
    "max_batch_size": ("64", 64),
    "max_batch_prefill_tokens": ("8192", 8192),
    "huggingface_hub_cache": ("/data", "/data"),
    "kv_block_size": ("32", 32),
    "max_top_n_tokens": ("20", 20),
    "graceful_termination_timeout": ("5", 5.0),
    "otlp_endpoint": ("http://127.0.0.1:4317", "http://127.0.0.1:4317"),
    "root_path": ("/llm", "/llm"),
    "tokenizer_config_path": ("/chat.jinja", "/chat.jinja"),
    "kv_cache_memory": ("1000000", 1_000_000),
    "hf_overrides": ('{"rope_theta": 1e6}', {"rope_theta": 1e6}),
}
SAYS = {
    "cuda_graphs": {"0": (0,)},
    "disable_prefix_cache": {"true": True, "false": False},
    "deterministic": {"true": True},
}
EACH = [(spelling, flag) for spelling in SPELLINGS for flag in spelling.flags]


def refused(*argv: str) -> str:
    stderr = io.StringIO()
    with contextlib.redirect_stderr(stderr), pytest.raises(SystemExit) as end:
        parse(argv, {})
    assert end.value.code == 2
    return stderr.getvalue().splitlines()[-1]


def given(spelling: Spelling, flag: str) -> tuple[list[str], object]:
    """Arguments with this flag, and what the option becomes."""
    if spelling.says is not None:
        return [flag], SAYS[spelling.option][spelling.says]
    text, value = TEXTS[spelling.option]
    return [flag, text], value


@pytest.mark.parametrize(("spelling", "flag"), EACH, ids=lambda x: x if isinstance(x, str) else "")
def test_each_means_an_option(spelling: Spelling, flag: str) -> None:
    argv, value = given(spelling, flag)
    options, notices = parse(argv, {})
    assert getattr(options, spelling.option) == value and notices == []
    changed = [one.name for one in OPTIONS if getattr(options, one.name) != one.default]
    assert set(changed) <= {spelling.option}


@pytest.mark.parametrize(("spelling", "flag"), EACH, ids=lambda x: x if isinstance(x, str) else "")
def test_two_spellings_are_an_error_that_names_both(spelling: Spelling, flag: str) -> None:
    argv, _ = given(spelling, flag)
    option = BY_NAME[spelling.option]
    text = str(TEXTS.get(spelling.option, ("0",))[0]).replace("localhost", "::1")
    own = [option.flag, text.replace("_marlin", "")] if option.kind.takes_value else [option.flag]
    for line in ([*argv, *own], [*own, *argv]):
        message = refused(*line)
        assert option.flag in message and f" {flag} " in f" {message} ", message


def test_the_same_flag_twice_is_the_last() -> None:
    assert parse(["-tp", "2", "-tp", "4"], {})[0].num_shard == 4
    assert "-p and --port say the same" in refused("-p", "1", "--port", "2")


def test_no_flag_is_claimed_twice() -> None:
    flags = [flag for _, flag in EACH]
    flags += [flag for option in OPTIONS for flag in (option.flag, option.short) if flag]
    flags += [unsupported.flag for unsupported in UNSUPPORTED]
    assert len(flags) == len(set(flags))


@pytest.mark.parametrize(
    ("text", "value"), [("8k", 8000), ("8K", 8192), ("1.5k", 1500), ("auto", None), ("-1", None)]
)
def test_lengths(text: str, value: int | None) -> None:
    assert parse([f"--max-model-len={text}"], {})[0].max_total_tokens == value


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--max-model-len", "9x"], "--max-model-len: must be a whole number"),
        (["--tp", "0"], "--tp/--tp-size: must be a whole number from 1 to 64, not '0'"),
        (["--host", "example.org"], "--host: must be an IP address"),
        (["-q", "gguf"], "-q: must be one of"),
        (["--mem-fraction-static", "1.5"], "--mem-fraction-static: must be a number"),
    ],
)
def test_an_error_names_what_was_typed(argv: list[str], words: str) -> None:
    assert words in refused(*argv)


def test_values_of_options_that_are_named_alike() -> None:
    for text, value in (("auto", None), ("half", "float16"), ("float", "float32")):
        assert parse(["--dtype", text], {})[0].dtype == value
        assert parse([], {"DTYPE": text})[0].dtype == value
    assert parse(["--load-format", "safetensors"], {})[0] == Options()
    assert parse(["--generation-config", "vllm"], {})[0].generation_config == "none"
    names = ["--served-model-name", "a", "b", "--served-model-name", "c"]
    assert parse(names, {})[0].served_model_name == ("a", "b", "c")
    keys = ["--api-key", "a", "--api-key", "b"]
    assert parse(keys, {})[0].api_key == ("a", "b")
    assert "unrecognized arguments: stray (the model is --model-id" in refused(*keys, "stray")
    assert "unrecognized arguments: --stray (penstock migrate" in refused("--stray")


COMMAND = re.compile(
    r"(?:vllm serve (?P<model>\S+/\S+)|python -m \S+\.(?:launch_server|api_server)|"
    r"ghcr\.io/huggingface/text-generation-inference\S*)"
    r"(?P<rest>(?:[^\n\\&]*\\\n|[^\n\\&]*$|\s*\n--)*)",
    re.MULTILINE,
)
NOT_SERVED = ("--speculative-model", "--speculative-num-steps")  # nothing speculates yet


def typed() -> list[list[str]]:
    """The arguments of every command line of the articles."""
    found = []
    for number in range(4):
        for path in SEEDS.glob(f"{number:03}_*.txt"):
            for match in COMMAND.finditer(path.read_text()):
                rest = match["rest"].replace("\\\n", " ")
                model = ["--model-id", match["model"]] if match["model"] else []
                found.append(model + shlex.split(re.split(r"#|\d\. [A-Z]", rest)[0]))
    return found


@pytest.mark.skipif(not SEEDS.is_dir(), reason="the articles are not on this machine")
def test_command_lines_of_articles() -> None:
    lines = [line for line in typed() if not set(line) & set(NOT_SERVED)]
    assert len(lines) > 10 and sum(len(line) > 2 for line in lines) > 8
    for line in lines:
        options, notices = parse(line, {})
        assert notices == [] and (options != Options() or not line), line


@pytest.mark.parametrize("flag", NOT_SERVED)
def test_what_speculates_is_refused(flag: str) -> None:
    """And is never ignored: whoever gives it counts on the speed."""
    said = refused("--model-path", "org/name", flag, "org/draft")
    assert f"{flag} of " in said and "is not built yet: one token a step" in said
