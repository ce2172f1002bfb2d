"""`penstock bench serve` as a user runs it, against a small real HTTP server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from penstock import benchmark_serving
from penstock.bench.serve import main
from support.server import gone
from support.token_server import TokenServer, running_token_server

SMALL = ["--num-prompts", "6", "--input-len", "40", "--output-len", "5", "--disable-tqdm"]


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[TokenServer, str]]:
    with running_token_server() as pair:
        yield pair


@pytest.fixture
def server(running: tuple[TokenServer, str]) -> tuple[TokenServer, str]:
    running[0].__dict__.update(bodies=[], headers=[], flushed=0, most_in_flight=0)
    running[0].behave = lambda index: "ok"
    return running


def bench(url: str, *arguments: str) -> int:
    return main([*SMALL, "--url", url, *arguments])


@pytest.mark.parametrize(
    ("backend", "warm"), [("vllm", 2), ("openai-chat", 4), ("tgi", 4), ("sglang", 2)]
)
def test_protocols(
    server: tuple[TokenServer, str], tmp_path: Path, backend: str, warm: int
) -> None:
    handler, url = server
    out = tmp_path / "r.json"
    assert bench(url, "--backend", backend, "--max-concurrency", "2", "--out", str(out)) == 0
    (run,) = json.loads(out.read_text())["runs"]
    assert (run["completed"], run["output_tokens"]) == (6, 30)
    assert len(handler.bodies) == warm + 6 and handler.most_in_flight == 2
    # of TGI two tokens are a word, of chat five more are the template's
    assert run["prompt_tokens"] == 6 * (45 if backend == "openai-chat" else 40)
    assert run["ttft_ms"]["p50"] > 0 and run["label"] == "c2"


def test_sweep_plot_and_comparison(server: tuple[TokenServer, str], tmp_path: Path) -> None:
    handler, url = server
    out, picture = tmp_path / "r.json", tmp_path / "r.png"
    sweep = ["--max-concurrency", "1", "2", "--goodput", "ttft:60000", "tpot:60000"]
    said = ["--out", str(out), "--plot", str(picture), "--flush-cache", "--header", "x-a: b c"]
    assert bench(url, *sweep, *said, "--api-key", "secret-key") == 0
    content = json.loads(out.read_text())
    assert [run["label"] for run in content["runs"]] == ["c1", "c2"]
    assert [run["goodput"]["requests"] for run in content["runs"]] == [6, 6]
    assert picture.read_bytes().startswith(b"\x89PNG") and handler.flushed == 2
    assert handler.headers[0]["x-a"] == "b c"
    assert handler.headers[0]["Authorization"] == "Bearer secret-key"
    assert "secret-key" not in out.read_text()
    assert len({tuple(body["prompt"]) for body in handler.bodies}) == 14  # nothing twice
    compare = ["--max-concurrency", "1", "--compare", str(out), "--num-warmups", "0"]
    assert bench(url, *compare, "--tolerance", "10", "--plot", str(picture)) == 0
    content["runs"][0]["output_tokens_per_second"] *= 1000
    out.write_text(json.dumps(content))
    assert bench(url, *compare) == 1


def test_rates_ramps_and_tokens_that_come_in_pairs(
    server: tuple[TokenServer, str], capsys: pytest.CaptureFixture[str]
) -> None:
    handler, url = server
    handler.behave = lambda index: "two"
    assert bench(url, "--request-rate", "300", "--max-concurrency", "3") == 0
    said = capsys.readouterr().out
    assert "rate 300 c3: 6 requests" in said and "events bring several tokens" in said
    ramp = ["--ramp-up-strategy", "linear", "--ramp-up-start-rps", "100"]
    assert bench(url, *ramp, "--ramp-up-end-rps", "500", "--count-tokens") == 0
    said = capsys.readouterr().out
    assert "rate 100 to 500: 6 requests" in said and "events bring several tokens" not in said
    assert handler.bodies[-1]["stream_options"]["continuous_usage_stats"] is True


def test_the_command_line_of_vllm_s_users(
    server: tuple[TokenServer, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, url = server
    command = f"--backend vllm --model some/model --num-prompts 4 --input-len 32 --output-len 8 \
        --base-url {url} --save-result --result-dir {tmp_path} --result-filename r.json"
    assert benchmark_serving.main(command.split()) == 0
    result: dict[str, Any] = json.loads((tmp_path / "r.json").read_text())
    assert result["model_id"] == "some/model" and result["completed"] == 4
    assert result["total_output_tokens"] == 32 and result["median_ttft_ms"] > 0
    assert {"p99_ttft_ms", "p99_tpot_ms", "p50_itl_ms"} - result.keys() == {"p50_itl_ms"}
    said = capsys.readouterr().out
    words = ("p50", "p99", "prefill tokens a second", "decode tokens a second", "in flight")
    assert all(word in said for word in words)


def test_failures_end_with_one(
    server: tuple[TokenServer, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    handler, url = server
    handler.behave = lambda index: "refuse" if index == 3 else "ok"
    assert bench(url) == 1
    said = capsys.readouterr().out
    assert "HTTP 429" in said and "see --max-concurrency" in said
    for arguments, sentence in [
        (["--dataset", "sharegpt"], "needs --dataset-path"),
        (["--ramp-up-strategy", "linear"], "a ramp needs"),
        (["--endpoint", "/x"], "expected a path"),
        (["--compare", str(tmp_path / "none.json")], "No such file"),
        (["--url", "ftp://x"], "is no http or https address"),
        (["--url", "http://127.0.0.1:9"], "cannot be reached"),
    ]:
        assert bench(url, *arguments) == 1
        assert sentence in capsys.readouterr().err
    for wrong, sentence in [
        (["--header", "a: b\r\nc: d"], "expected NAME: VALUE"),
        (["--num-prompts", "0"], "0 is not >= 1"),
        (["--goodput", "x:1"], "expected NAME:MILLISECONDS"),
        (["--token-range", "6"], "'6': expected LOW-HIGH"),
        (["--extra-body", "{"], "'{' is not JSON"),
        (["--extra-body", "[]"], "'[]': expected a JSON object"),
        (["--metric-percentiles", "x"], "invalid"),
    ]:
        with pytest.raises(SystemExit):
            bench(url, *wrong)
        assert sentence in capsys.readouterr().err


def test_what_was_measured_until_ctrl_c_is_kept(
    server: tuple[TokenServer, str], tmp_path: Path
) -> None:
    """All processes of a terminal's job get the signal."""
    handler, url = server
    both_hang = threading.Event()

    def behave(index: int) -> str:
        if index == 6:
            both_hang.set()
        return "ok" if index < 5 else "hang"

    handler.behave = behave
    out = tmp_path / "r.json"
    command = [sys.executable, "-m", "penstock.bench", "serve", *SMALL, "--url", url]
    command += ["--num-prompts", "50", "--max-concurrency", "2", "--processes", "2"]
    command += ["--num-warmups", "0", "--out", str(out)]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as running:
        try:
            assert both_hang.wait(60)
            workers = psutil.Process(running.pid).children()
            os.killpg(running.pid, signal.SIGINT)
            said, errors = running.communicate(timeout=60)
        finally:
            running.kill()
    assert running.returncode == 130 and errors == "penstock bench serve: interrupted\n"
    (run,) = json.loads(out.read_text())["runs"]
    assert (run["completed"], run["failed"], run["cut"]) == (5, 0, 2) and "c2: 7 requests" in said
    assert len(workers) == 2 and gone(workers, 60)


def test_plots_without_matplotlib_say_what_to_install(
    server: tuple[TokenServer, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    handler, url = server
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert bench(url, "--plot", "x.png") == 1
    assert "pip install 'penstock[plot]'" in capsys.readouterr().err
    assert not handler.bodies  # said before anything is measured
