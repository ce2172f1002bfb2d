"""What a start on a GPU leaves: the ledger is what the driver says, and the largest step still has
its room."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
import torch
from benchmarks.configs import write_model_folder

from support.local_shard import LocalShard, load_model

pytestmark = pytest.mark.gpu

MIB = 1 << 20


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


def test_the_ledger_is_what_the_gpu_has(tmp_path: Path) -> None:
    """The 1B shape with random weights, all of a GPU."""
    folder = write_model_folder("llama-3.2-1b", tmp_path / "model")
    begun = time.monotonic()
    loaded = load_model(
        folder, device="cuda", dtype="bfloat16", load_format="dummy", kv_block_size=64
    )
    sizes = {"max_prefill_tokens": 4096, "max_slots": 256, "max_sequence_length": 131_072}
    warmed = LocalShard(loaded, **sizes, max_batch_total_tokens=0).warmup
    ledger = dict(warmed.memory)
    free, total = torch.cuda.mem_get_info()
    print()
    print(f"start: {time.monotonic() - begun:.1f} s, phases {dict(warmed.phases)}")
    for name, size in (*ledger.items(), ("free by CUDA", free), ("total", total)):
        print(f"{name:14} {size / MIB:10.0f} MiB")
    said = driver_says()
    for name, size in said.items():
        print(f"{name:14} {size / MIB:10.0f} MiB, says nvidia-smi")
    assert abs(sum(ledger.values()) - (total - free)) < 64 * MIB
    assert abs(said.get("memory.free", free) - free) < 1024 * MIB
    assert ledger["workspace"] < free < ledger["workspace"] + 4096 * MIB
