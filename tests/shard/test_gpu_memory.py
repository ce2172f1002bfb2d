"""What a start on a GPU leaves: the ledger is what the driver says, the largest step still has its
room, and a GPU that others fill is shared with them.

python -m pytest -m gpu -s tests/shard/test_gpu_memory.py
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from benchmarks.configs import write_model_folder

from penstock_proto import shard_pb2
from penstock_shard.memory.kv_cache import CUDA_RESERVE
from penstock_shard.memory.out_of_memory import give_back
from penstock_shard.weights.loaded_model import LoadedModel
from support.local_shard import LocalShard, load_model
from support.shard_driver import admission, neutral, running_shards

pytestmark = pytest.mark.gpu

MIB = 1 << 20
LONGEST, SLOTS, PREFILL = 131_072, 256, 4096
SIZES = {
    "max_prefill_tokens": PREFILL,
    "max_slots": SLOTS,
    "max_sequence_length": LONGEST,
    "max_batch_total_tokens": 0,
}
HOLD = """
import ctypes, sys
cuda, context, place = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p(), ctypes.c_void_p()
size, number = ctypes.c_size_t(int(sys.argv[1])), ctypes.c_int(int(sys.argv[2]))
device = ctypes.c_int()
codes = [cuda.cuInit(0), cuda.cuDeviceGet(ctypes.byref(device), number)]
codes.append(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device))
codes.append(cuda.cuCtxSetCurrent(context))
codes.append(cuda.cuMemAlloc_v2(ctypes.byref(place), size))
print("held" if not any(codes) else codes, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """The 1B shape with random weights."""
    folder = write_model_folder("llama-3.2-1b", tmp_path_factory.mktemp("1b") / "model")
    return load_model(
        folder, device="cuda", dtype="bfloat16", load_format="dummy", kv_block_size=64
    )


@pytest.fixture
def shard(loaded: LoadedModel) -> Iterator[LocalShard]:
    """All of the GPU."""
    with started(loaded) as shard:
        yield shard


@contextlib.contextmanager
def started(loaded: LoadedModel) -> Iterator[LocalShard]:
    """A shard whose memory is given back behind it."""
    shard = LocalShard(loaded, **SIZES)
    told(shard)
    try:
        yield shard
    finally:
        del shard.runner
        give_back(loaded.device)


def told(shard: LocalShard) -> None:
    """Print what a start found."""
    answer = shard.warmup
    parts = ", ".join(f"{name} {size / MIB:.0f}" for name, size in sorted(answer.memory.items()))
    steps = f"steps of {answer.max_prefill_tokens} tokens, {answer.max_slots} slots"
    print(f"\nMiB: {parts}; {steps}; {dict(answer.phases)}")


@contextlib.contextmanager
def another_process(size: int, device: int = 0) -> Iterator[None]:
    """Holds so many bytes of the GPU."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(size), str(device)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stdin is not None
    try:
        assert process.stdout.readline() == "held\n"
        yield
    finally:
        process.stdin.close()
        process.wait(60)


def driver_says() -> dict[str, int]:
    """Bytes of the GPU that torch calls cuda:0, by nvidia-smi; nothing where that does not say."""
    fields = ("memory.used", "memory.free", "memory.reserved", "memory.total")
    query = ["nvidia-smi", f"--query-gpu=uuid,{','.join(fields)}", "--format=csv,noheader,nounits"]
    said = subprocess.run(query, capture_output=True, text=True)
    rows = [line.split(", ") for line in said.stdout.splitlines()]
    uuid = str(torch.cuda.get_device_properties(0).uuid)
    ours = [sizes for name, *sizes in rows if uuid in name or len(rows) == 1]
    if said.returncode or len(ours) != 1 or not all(size.isdigit() for size in ours[0]):
        print(
            f"nvidia-smi: code {said.returncode}, {said.stdout.strip()!r} {said.stderr.strip()!r}"
        )
        return {}
    return dict(zip(fields, (int(size) * MIB for size in ours[0]), strict=True))


def free_bytes() -> int:
    return int(torch.cuda.mem_get_info()[0])


def serve_the_largest(shard: LocalShard) -> int:
    """Steps as large as there may be: all slots behind the longest context, with all that can be
    sampled, beside a prompt whose tokens are scored. Returns the bytes that torch took for them."""
    slots, prefill = shard.warmup.max_slots, shard.warmup.max_prefill_tokens
    block_size, blocks = shard.runner.limits.block_size, shard.runner.limits.num_blocks - 1
    full = min(LONGEST // block_size, blocks) - 1  # blocks, and a token behind them
    everything = neutral(
        temperature=1, top_p=0.9, typical_p=0.9, min_p=0.01, repetition_penalty=1.1,
        frequency_penalty=0.1, logprobs=True, top_n=5, seed=3,
        logit_bias=shard_pb2.LogitBias(token=[5], value=[1]),
    )  # fmt: skip
    context, own = [7] * (full * block_size + 1), list(range(1, 2 + full))
    device = torch.device("cuda")
    give_back(device)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_reserved()
    decoding = list(range(slots - 1))
    for first in range(0, slots - 1, 32):
        new = decoding[first : first + 32]
        prompts = [
            admission(slot, context, own, everything, cached=len(context) - 1) for slot in new
        ]
        [result] = shard.run(
            admit=prompts, chunk_slot=new, chunk_length=[1] * len(new),
            decode_changed=True, decode=decoding[:first],
        )  # fmt: skip
        assert not result.refused, result.refused[0]
    cached = max(0, full - prefill // block_size + 1) * block_size
    length = len(context) - cached
    scored = admission(
        slots - 1, context, own, everything, cached=cached,
        prompt_logprobs=True, prompt_logprobs_start=cached, prompt_top_n=5,
    )  # fmt: skip
    results = shard.run(
        admit=[scored], chunk_slot=[slots - 1], chunk_length=[length],
        decode_changed=True, decode=decoding,
    )  # fmt: skip
    results += shard.run(decode_changed=True, decode=[*decoding, slots - 1], repeat=2)
    assert not any(result.refused for result in results)
    assert [len(result.token) for result in results] == [slots] * 3
    taken = int(torch.cuda.max_memory_reserved()) - before
    again = torch.cuda.memory_stats()["num_alloc_retries"]
    print(f"taken {taken / MIB:.0f} MiB; until now the allocator emptied itself {again} times")
    return taken


def test_the_ledger_is_what_the_gpu_has(shard: LocalShard) -> None:
    """Its parts are all of the GPU, and little of it is left unused."""
    ledger, said = dict(shard.warmup.memory), driver_says()
    give_back(torch.device("cuda"))
    free, total = torch.cuda.mem_get_info()
    print({name: size / MIB for name, size in said.items()})
    assert sum(ledger.values()) == total
    assert abs(ledger["workspace"] + ledger["free"] - free) < 64 * MIB
    assert abs(said.get("memory.free", free) - free) < 64 * MIB
    assert abs(said.get("memory.used", total - free) - (total - free)) < 64 * MIB
    assert 0 <= ledger["free"] < CUDA_RESERVE + 128 * MIB


def test_the_largest_batch_has_its_room(shard: LocalShard) -> None:
    """Directly behind the start, and no more than the ledger says."""
    taken = serve_the_largest(shard)
    assert taken <= shard.warmup.memory["workspace"] + shard.warmup.memory["free"]


@pytest.mark.parametrize("share", [0.6, 0.9])
def test_a_gpu_that_another_process_fills(loaded: LoadedModel, share: float) -> None:
    """What it holds is another's: the cache is smaller, and steps are not."""
    held = int(torch.cuda.mem_get_info()[1] * share)
    with another_process(held), started(loaded) as shard:
        assert shard.warmup.memory["other"] > held
        assert (shard.warmup.max_prefill_tokens, shard.warmup.max_slots) == (PREFILL, SLOTS)
        serve_the_largest(shard)


@pytest.mark.parametrize("left", [3072, 1536, 768])
def test_a_gpu_that_is_nearly_full(
    loaded: LoadedModel, capsys: pytest.CaptureFixture[str], left: int
) -> None:
    """F12: steps become smaller, which is said, and are served. left: MiB, weights are there."""
    with another_process(free_bytes() - (left + 600) * MIB):  # its own context takes some 600
        try:
            with started(loaded) as shard:
                assert shard.warmup.max_prefill_tokens < PREFILL
                serve_the_largest(shard)
                assert "does not fit in memory, trying" in capsys.readouterr().err
        except ValueError as error:
            assert left == 768 and "--max-batch" in str(error), error


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_of_which_one_is_half_full(tmp_path: Path) -> None:
    """Both take the cache that the fuller one has room for, and both ledgers add up."""
    folder = write_model_folder("llama-3.2-1b", tmp_path / "model")
    held = int(torch.cuda.mem_get_info()[1] * 0.5)
    config = {"device": "cuda", "dtype": "bfloat16", "load_format": "dummy", "kv_block_size": 64}
    with (
        another_process(held, 1),
        running_shards(folder, tmp_path / "s", 2, **config) as two,
    ):
        first, second = two.warm_up(**SIZES)
        for answer in (first, second):
            print({name: size // MIB for name, size in answer.memory.items()})
            assert sum(answer.memory.values()) == answer.memory_total
        assert first.num_blocks == second.num_blocks
        assert second.memory["other"] > held > first.memory["other"]
        assert second.memory["free"] < CUDA_RESERVE + 128 * MIB
        assert first.memory["free"] > held - 1024 * MIB
        assert [len(tokens) for tokens in two.generate([[5, 6, 7], [9] * 300], 8)] == [8, 8]
