"""What the start of a shard reports while somebody waits: weights, kernels, graphs."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock_kernels.gpu.launch.ahead import CountedPool
from penstock_shard.steps.graphs import CountedCapture, GraphSizes
from penstock_shard.weights.loaded_model import LoadedModel
from support.local_shard import Eager, LocalShard, interpret, load_model


def reported(capsys: pytest.CaptureFixture[str], what: str) -> list[dict[str, Any]]:
    records = [line for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    found = [record["progress"] for record in map(json.loads, records) if "progress" in record]
    return [progress for progress in found if progress["what"] == what]


@pytest.fixture
def loaded(checkpoint: Callable[[str], Path]) -> LoadedModel:
    return load_model(checkpoint("llama3"))


def test_weights_are_bytes(
    checkpoint: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = checkpoint("llama3")
    load_model(folder)
    last = reported(capsys, "weights")[-1]
    headers = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    assert last["unit"] == "B" and last["done"] == last["total"]
    assert 0.5 * headers < last["total"] < headers, "files hold little beside"


def test_graphs_are_counted_before_they_are_made(
    loaded: LoadedModel, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = interpret(LocalShard(loaded), loaded, (1, 2))
    made: list[int] = []

    def capture(step: Callable[[], None]) -> Eager:
        made.append(1)
        return Eager(step)

    capsys.readouterr()
    counted = CountedCapture(capture)
    shard.runner.capture_graphs(GraphSizes((1, 2)), counted, counted.expect)
    progress = reported(capsys, "capture")
    assert progress[-1]["done"] == progress[-1]["total"] == len(made) > 10
    assert {one["total"] for one in progress} == {len(made)} and progress[-1]["unit"] == "graphs"


def test_kernels_are_counted_when_all_are_known() -> None:
    told: list[tuple[int, int]] = []
    may_end = threading.Event()
    with CountedPool(4, lambda done, total: told.append((done, total))) as pool:
        pool.submit(lambda: None).result()
        for _ in range(3):
            pool.submit(may_end.wait, 60)
        assert told == [], "more may come"
        pool.no_more()
        assert told and all(done <= 1 and total == 4 for done, total in told)
        may_end.set()
    assert told[-1] == (4, 4) and [done for done, _ in told] == sorted(done for done, _ in told)
