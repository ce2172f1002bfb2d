"""The benchmarks of the offline engine, on the demo model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from penstock.bench.__main__ import main

SMALL = ["--input-len", "24", "--output-len", "4", "--device", "cpu", "--disable-tqdm"]


@pytest.mark.parametrize(
    ("command", "more", "key"),
    [
        ("throughput", ["--num-prompts", "6"], "output_tokens"),
        ("latency", ["--batch-size", "2", "--num-iters", "2", "--num-iters-warmup", "1"], "p99"),
        ("startup", ["--num-iters", "1"], "first_start_seconds"),
    ],
)
def test_measures(command: str, more: list[str], key: str, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    assert main([command, *SMALL, *more, "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    assert result[key] > 0
    if command == "throughput":
        assert (result["output_tokens"], result["total_num_tokens"]) == (24, 6 * 28)
    if command == "latency":
        assert len(result["latencies"]) == 2


def test_what_the_engine_refuses_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["throughput", "--model", "/no/such/folder"]) == 1
    assert "/no/such/folder" in capsys.readouterr().err
