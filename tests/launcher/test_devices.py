"""How many shards: TGI's rule, with the GPUs that a stand-in for nvidia-smi lists."""

import os
import sys

import pytest

from penstock_launcher import devices
from penstock_launcher.devices import cpu_cores, num_shards, visible_gpus
from penstock_launcher.errors import LauncherError
from penstock_launcher.options import Options


@pytest.fixture
def four_gpus(tmp_path, monkeypatch):
    """A real program called nvidia-smi, first on the path."""
    tool = tmp_path / "nvidia-smi"
    lines = "\\n".join(f"GPU {i}: NVIDIA H100 (UUID: GPU-{i})" for i in range(4))
    tool.write_text(f'#!{sys.executable}\nprint("{lines}")\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.parametrize(
    "environ, gpus",
    [
        ({}, 4),
        ({"CUDA_VISIBLE_DEVICES": "0,1"}, 2),
        ({"CUDA_VISIBLE_DEVICES": ""}, 0),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, 0),
        ({"CUDA_VISIBLE_DEVICES": "0,-1,2"}, 1),
        ({"CUDA_VISIBLE_DEVICES": "GPU-0,GPU-1,GPU-2"}, 3),
        ({"CUDA_VISIBLE_DEVICES": "1", "NVIDIA_VISIBLE_DEVICES": "all"}, 1),
        ({"NVIDIA_VISIBLE_DEVICES": "all"}, 4),
        ({"NVIDIA_VISIBLE_DEVICES": "void"}, 4),
        ({"NVIDIA_VISIBLE_DEVICES": "none"}, 0),
        ({"NVIDIA_VISIBLE_DEVICES": "0,3"}, 2),
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7"}, 4),
    ],
)
def test_visible_gpus(four_gpus, environ, gpus):
    assert visible_gpus(environ) == gpus


def test_no_driver_means_no_gpu(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "0,1"}) == 0


def test_broken_driver_means_no_gpu(monkeypatch, tmp_path):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_gpus({}) == 0


@pytest.mark.parametrize(
    "options, gpus, shards",
    [
        (Options(), 0, 1),
        (Options(), 4, 4),
        (Options(device="cpu"), 4, 1),
        (Options(num_shard=2), 4, 2),
        (Options(num_shard=2), 0, 2),
        (Options(num_shard=8, device="cpu"), 4, 8),
        (Options(sharded=False), 4, 1),
        (Options(sharded=False, num_shard=2), 4, 2),
        (Options(sharded=True), 4, 4),
        (Options(sharded=True, num_shard=2), 0, 2),
    ],
)
def test_num_shards(options, gpus, shards):
    assert num_shards(options, gpus) == shards


@pytest.mark.parametrize(
    "options, gpus, words",
    [
        (Options(sharded=True), 1, "--sharded"),
        (Options(sharded=True, num_shard=1), 4, "--num-shard is 1"),
        (Options(num_shard=8), 4, "--num-shard 8"),
        (Options(device="cuda"), 0, "--device cuda"),
    ],
)
def test_impossible_shards(options, gpus, words):
    with pytest.raises(LauncherError, match=words):
        num_shards(options, gpus)


@pytest.mark.parametrize(
    "quota, cores", [("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1), ("", 8)]
)
def test_cpu_cores_heeds_the_quota(tmp_path, monkeypatch, quota, cores):
    (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr(devices, "CGROUP_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert cpu_cores() == cores
