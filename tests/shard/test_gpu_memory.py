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


def driver_says(field: str) -> int:
    """Bytes of the GPU that torch calls cuda:0, by nvidia-smi."""
    uuid = f"GPU-{torch.cuda.get_device_properties(0).uuid}"
    query = ["nvidia-smi", "-i", uuid, f"--query-gpu=memory.{field}", "--format=csv,noheader"]
    said = subprocess.run([*query, "--nounits"], capture_output=True, check=True, text=True)
    return int(said.stdout) * MIB


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
    used, left = driver_says("used"), driver_says("free")
    print(f"by nvidia-smi  {used // MIB} MiB used, {left // MIB} MiB free")
    assert abs(sum(ledger.values()) - (total - free)) < 64 * MIB
    assert abs(left - free) < 1024 * MIB  # it keeps some for itself
    assert ledger["workspace"] < free < ledger["workspace"] + 4096 * MIB
