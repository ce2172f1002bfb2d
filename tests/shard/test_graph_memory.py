"""What graphs take, known from some of them; and the ledger of all memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from penstock_shard.memory.graph_memory import capture_some
from penstock_shard.memory.memory import ledger
from penstock_shard.steps.graphs import LARGEST_FIRST, Capturer, GraphKind, GraphSizes
from support.local_shard import Eager, LocalShard, interpret, load_model

POOL, EACH = 1000, 7


@dataclass
class Kind:
    """Graphs in a pool: what is taken grows when one needs more of it than those before."""

    gpu: Gpu
    sizes: list[int]
    captured: list[int] = field(default_factory=list)

    @property
    def count(self) -> int:
        return len(self.sizes)

    def capture(self, capture: Capturer, sizes: slice = LARGEST_FIRST) -> int:
        for size in self.sizes[sizes]:
            self.gpu.take(size)
            self.captured.append(size)
        return len(self.sizes[sizes])


@dataclass
class Gpu:
    pool: int = 0
    graphs: int = 0
    others: int = 500

    def take(self, size: int) -> None:
        self.pool = max(self.pool, size)
        self.graphs += 1

    def used(self) -> int:
        return self.others + self.pool + EACH * self.graphs


def test_what_is_found_by_some_of_them_is_what_all_take() -> None:
    """The pool is that of the largest graph; of each other one a part that is about the same."""
    gpu = Gpu()
    kinds = [Kind(gpu, list(range(10, 610, 10))), Kind(gpu, [5, 700]), Kind(gpu, [3])]
    rest = capture_some(kinds, Eager, gpu.used)
    assert [kind.captured[0] for kind in kinds] == [600, 700, 3], "the largest first"
    assert sum(len(kind.captured) for kind in kinds) < 20
    whole = Gpu()
    for kind in kinds:
        Kind(whole, kind.sizes).capture(Eager)
    assert rest > 0 and gpu.used() + rest == whole.used()


def test_kinds_of_a_runner_capture_parts_of_themselves(
    checkpoint: Callable[[str], Path],
) -> None:
    """Each graph once, whichever way it is reached."""
    loaded = load_model(checkpoint("llama2"))
    shard = interpret(LocalShard(loaded), loaded, (1, 2))
    with torch.inference_mode():
        kinds: tuple[GraphKind, ...] = shard.runner.graphs_of(GraphSizes((1, 2, 4), 40)).kinds
        for kind in kinds:
            parts = [kind.capture(Eager, part) for part in (slice(-1, None), slice(-2, None, -1))]
            assert sum(parts) == kind.count and min(parts) >= 1
    mixed, decode, draws = kinds
    assert decode.count == 3 and len(kinds) == 3 and draws.count % 7 == 0
    assert mixed.count == len({16, 32, 40 + 6})


@pytest.mark.parametrize("used", [900, 700])
def test_the_ledger_is_all_there_is(
    checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, used: int
) -> None:
    """What a step takes is free while none runs, and stands there as its."""
    loaded = dataclasses.replace(
        load_model(checkpoint("llama2")), device=torch.device("cuda")
    )  # fmt: skip
    weights = loaded.decoder.nbytes
    total = weights + 1000
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000 - used, total))
    found = ledger(loaded, 400, 90, 200)
    assert sum(found.values()) == total
    assert found == {
        "weights": weights, "kv_cache": 400, "graphs": 200, "workspace": 90,
        "other": used - 600, "free": 1000 - used - 90,
    }  # fmt: skip
