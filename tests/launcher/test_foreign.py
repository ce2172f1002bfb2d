"""Flags of vLLM and SGLang that the launcher has no name for, and words that nobody knows."""

from __future__ import annotations

import contextlib
import io
import re

import pytest

from penstock_launcher.command_line import parse
from penstock_launcher.configs import without_secrets
from penstock_launcher.foreign import SERVERS
from penstock_launcher.migration.rows import Row
from penstock_launcher.options import OPTIONS, Options

OWN = {flag for option in OPTIONS for flag in (option.flag, option.short)}


def refused(*argv: str) -> str:
    stderr = io.StringIO()
    with contextlib.redirect_stderr(stderr), pytest.raises(SystemExit) as end:
        parse(argv, {})
    assert end.value.code == 2
    return stderr.getvalue().splitlines()[-1]


def test_what_changes_nothing_is_left_out_and_named() -> None:
    argv = ["--enable-chunked-prefill", "--swap-space", "4", "--port", "7", "--log-requests"]
    options, notices = parse(argv, {})
    assert options == Options(port=7)
    assert [notice.split(" is left out: ")[0] for notice in notices] == [
        "--enable-chunked-prefill of vLLM", "--swap-space of vLLM", "--log-requests of SGLang"
    ]  # fmt: skip
    assert parse(["-pp", "1", "-p", "7"], {}) == (Options(port=7), [])
    assert parse(["--data-parallel-size=1", "--limit-mm-per-prompt", "{}"], {}) == (Options(), [])


def test_what_is_called_otherwise_is_read_as_that() -> None:
    argv = ["--max_model_len", "2k", "--cudagraph-capture-sizes", "1", "2", "--enable-metrics"]
    options, notices = parse([*argv, "--rope-theta", "1e6", "--api_key", "secret"], {})
    assert options == Options(
        max_total_tokens=2000,
        cuda_graphs=(1, 2),
        metric_names=("sglang",),
        hf_overrides={"rope_theta": 1e6},
        api_key=("secret",),
    )
    assert notices[0] == "--max_model_len of vLLM is --max-total-tokens here"
    assert len(notices) == 5 and "secret" not in str(notices)


def values(row: Row) -> list[str]:
    return ["7"] if row.takes_value else []


def rows() -> list[tuple[str, Row]]:
    """Those that are not served and that the launcher has no flag for."""
    found = [(server.name, row) for server in SERVERS for row in server.rows]
    return [(name, row) for name, row in found if not row.served and not OWN & set(row.flags)]


def test_what_is_not_served_ends_the_start_with_the_reason() -> None:
    assert len(rows()) > 60
    for _, row in rows():
        for flag in (flag for flag in row.flags if flag.startswith("--")):
            if flag in OWN or flag in ("--config", "--trust-remote-code"):
                continue  # the launcher's, or TGI's
            said = refused(flag, *values(row))
            assert re.search(rf"{flag} of (vLLM|SGLang) is |{flag} of \w+ cannot ", said), said
            assert "unrecognized" not in said


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--max-totl-tokens", "5"], "--max-totl-tokens 5; did you mean --max-total-tokens?"),
        (["--tensor-parallel", "2"], "did you mean --tensor-parallel-size?"),
        (["--cuda-graph-bs", "x"], "--cuda-graph-bs was left out: --cuda-graphs must be"),
        (
            ["--cuda-graphs", "1", "--cuda-graph-bs", "2"],
            "--cuda-graph-bs and --cuda-graphs say the same: give one of them",
        ),
        (["--rope-theta", "1", "--hf-overrides", "{}"], "--rope-theta and --hf-overrides say the"),
        (["--max_model_len", "5", "--context_length", "6"], "--context_length and --max-total"),
        (["--swap-space"], "unrecognized arguments: --swap-space ("),
        (["--enable-chunked-prefill", "x"], "arguments: --enable-chunked-prefill x ("),
        (["-pp", "2"], "-pp of vLLM is not built yet: --num-shard splits a model over GPUs"),
        (["-ep"], "-ep of vLLM is not built yet"),
        (["-pp"], "-pp: expected one argument"),
        (["--port", "7", "stray"], "stray (the model is --model-id"),
        (["stray", "--zzz"], "--zzz (penstock migrate"),
        (["--enable-lora", "--zzz"], "(docs/adapters.md); unrecognized arguments: --zzz"),
    ],
)
def test_a_word_that_nobody_knows(argv: list[str], said: str) -> None:
    assert said in refused(*argv)


def test_the_key_that_vllm_reads() -> None:
    """A server that passed over it would be open to everybody."""
    assert parse([], {"VLLM_API_KEY": "k"})[0].api_key == ("k",)
    assert without_secrets({"VLLM_API_KEY": "k", "PATH": "/bin"}) == {"PATH": "/bin"}
