"""Two ranks on two GPUs, each a process: sums of rows through mapped memory, as a step has them.

found = on_two_gpus(check, folder)     what check(group, device) returns on each rank
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from penstock_kernels.ops import Act, Activation, Norm
from penstock_kernels.weight import Weight
from penstock_shard.ranks.parallel import Group, join_group

SECONDS = 60
WIDTH, WIDE, LAYERS = 4096, 2048, 4
EPS = 1e-5

Check = Callable[[Group, torch.device], Any]


def on_two_gpus(check: Check, folder: Path) -> list[Any]:
    """What a function of a module gives on each of two ranks. Raises what it raised."""
    context = multiprocessing.get_context("spawn")
    results: Any = context.Queue()
    ranks = [
        context.Process(target=_rank, args=(rank, check, folder, results)) for rank in range(2)
    ]
    for process in ranks:
        process.start()
    found: dict[int, Any] = {}
    try:
        for _ in ranks:
            rank, result = results.get(timeout=SECONDS)
            if isinstance(result, Exception):
                raise result  # the other one may wait for it for ever
            found[rank] = result
    finally:
        for process in ranks:
            process.join(1)
            process.kill()
    return [found[rank] for rank in range(2)]


def _rank(rank: int, check: Check, folder: Path, results: Any) -> None:
    device = torch.device("cuda", rank)
    torch.cuda.set_device(device)
    try:
        group = join_group({"RANK": str(rank), "WORLD_SIZE": "2"}, folder, device)
        results.put((rank, check(group, device)))
        results.close()
        results.join_thread()
    except Exception as error:
        results.put((rank, RuntimeError(f"rank {rank}: {type(error).__name__}: {error}")))
        raise


def difference(x: Tensor, reference: Tensor) -> float:
    """1 - 2 xy / (xx + yy): free of scale, 0 where equal."""
    a, b = x.double().flatten(), reference.double().flatten()
    return float(1 - 2 * (a @ b) / (a @ a + b @ b))


def check_sums(group: Group, device: torch.device) -> dict[str, Any]:
    """Rows of both dtypes against float32, and what each rank got."""
    found: dict[str, Any] = {"difference": 0.0, "outputs": []}
    for dtype, width in ((torch.bfloat16, WIDTH), (torch.float32, 96)):
        rows = group.with_rows(device, width, dtype, dependent=True).rows
        assert rows is not None, "no mapped memory"
        weight = _seeded(1, device, width).to(dtype)
        for seed, count in enumerate((1, 2, 8, 33, 64, 256, 5, 1)):
            parts = _seeded(seed, device, 2, count, width).to(dtype)
            parts[:, :, ::7] = -0.0
            residual = _seeded(seed + 100, device, count, width).to(dtype)
            exact = residual.float() + parts.float().sum(0)
            expected = F.rms_norm(exact, (width,), weight.float(), EPS)
            assert rows.supports(parts[group.rank])
            out = rows.add_rms_norm(parts[group.rank], residual, weight, EPS)
            worst = max(difference(out, expected), difference(residual, exact))
            found["difference"] = max(found["difference"], worst)
            found["outputs"] += [_checksum(out), _checksum(residual)]
        assert not rows.supports(parts[0, :, :8].contiguous())
    found["outputs"] = [int(x) for x in found["outputs"]]
    return found


def _seeded(seed: int, device: torch.device, *shape: int) -> Tensor:
    """The same numbers on every rank."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).to(device)


def _checksum(x: Tensor) -> Tensor:
    """Of the bits, and of where they stand."""
    bits = x.flatten().view(torch.int16 if x.element_size() == 2 else torch.int32).long()
    return (bits * (torch.arange(len(bits), device=x.device) % 8191 + 1)).sum()


class Steps:
    """Steps that are all sums and products, as a decoder has them, launched or as graphs.

    With `group.rows` the sums of a layer go through inboxes, without through the older ways; a sum
    by NCCL and one that torch's one-shot kernel takes, if small, stand in each step in both cases.
    """

    def __init__(self, group: Group, device: torch.device, dependent: bool) -> None:
        from penstock_kernels.gpu.step.rows import TritonRows

        self.group, self.device = group, device
        self.rows = TritonRows(dependent)
        seed = iter(range(1000 * group.rank, 1000 * group.rank + 1000))
        self.layers = [
            tuple(
                Weight(_seeded(next(seed), device, n, k).bfloat16() * k**-0.5)
                for n, k in ((WIDTH, WIDE), (2 * WIDE, WIDTH))
            )
            for _ in range(LAYERS)
        ]
        self.gain = torch.ones(WIDTH, device=device, dtype=torch.bfloat16)
        self.inputs = torch.zeros(256, WIDE, device=device, dtype=torch.bfloat16)
        self.graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = {}

    def step(self, count: int) -> Tensor:
        """Each layer doubles as attention and MLP."""
        group, rows = self.group, self.rows
        norm = Norm(self.gain, EPS)
        x = Activation(self.inputs[:count].clone())
        residual = torch.zeros(count, WIDTH, device=self.device, dtype=torch.bfloat16)
        for out, up in self.layers:
            part = rows.linear(x, out)
            y = group.add_norm(part, residual, norm, up, rows)  # type: ignore[arg-type]
            x = rows.gated(y, up, Act.SILU)
        mean = y.x.mean().float()
        dist.all_reduce(mean)
        return group.all_reduce(y.x.clone()).mul_(0.5).add_(mean)

    def capture(self, count: int) -> None:
        """The graph that `replay` takes."""
        self.step(count)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            out = self.step(count)
        self.graphs[count] = graph, out

    def launch(self, count: int, inputs: Tensor) -> Tensor:
        """The outcome of a step, one kernel after the other."""
        self.inputs.copy_(inputs)
        out = self.step(count)
        torch.cuda.synchronize()
        return out

    def replay(self, count: int, inputs: Tensor) -> Tensor:
        """The outcome of a step, from its graph."""
        self.inputs.copy_(inputs)
        graph, out = self.graphs[count]
        graph.replay()
        return out


def check_replays(group: Group, device: torch.device) -> dict[str, Any]:
    """A thousand steps of changing rows and inputs, one rank late now and then, cards busy.

    Each is done three times: by the older sums, by inboxes one launch after the other, and by the
    graph that is tested.
    """
    assert group.small_sums is not None, "no mapped memory"

    def steps(dependent: bool) -> Steps:
        mapped = group.with_rows(device, WIDTH, torch.bfloat16, dependent)
        assert mapped.rows is not None, "no mapped memory"
        return Steps(mapped, device, dependent)

    older, calm, tested = Steps(group, device, False), steps(False), steps(True)
    counts = (256, 64, 8, 1)
    for count in counts:
        older.capture(count)
        tested.capture(count)
    differing = torch.zeros((), device=device, dtype=torch.int64)
    worst = torch.zeros((), device=device)
    sums, side = [], torch.cuda.Stream()
    noise = torch.zeros(64 << 20, device=device, dtype=torch.uint8)
    order = torch.Generator().manual_seed(5)
    torch.cuda.manual_seed(group.rank)  # ranks add up different rows
    inputs = torch.empty_like(older.inputs)
    for number in range(1000):
        count = counts[int(torch.randint(4, (), generator=order))]
        inputs.normal_()
        near, expected = older.replay(count, inputs), calm.launch(count, inputs)
        if number % 5 == group.rank:
            torch.cuda._sleep(100_000)
        with torch.cuda.stream(side):
            noise.add_(1)
        found = tested.replay(count, inputs)
        differing += (found != expected).sum()
        worst = torch.maximum(worst, (found - near).norm(dim=1).max() / WIDTH**0.5)
        sums.append(_checksum(found))
    return {"differing": int(differing), "worst": float(worst), "sums": [int(x) for x in sums]}
