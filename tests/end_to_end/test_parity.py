"""Greedy output through the whole stack equals `transformers`, token for token, in float32.

`tests/shard/test_families.py` has every family, without the server. Here are those that differ in
what scheduler, cache and loading have to do.
"""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest
import torch

from support import integer_checkpoints
from support.checkpoints import FAMILIES, make_checkpoint
from support.fp8_checkpoints import quantise_checkpoint
from support.parity import TINY_POOL, mixed_run
from support.reference import ReferenceModel
from support.server import running_server

# Elsewhere a shard has one thread (tests/conftest.py).
THREADS = {"gpt2": "2"}
# Its rotation follows from the longest sequence that the server admits, and transformers' from the
# one that it has: tests/shard/test_families.py holds it at lengths where both say the same.
BY_LIMIT = "phi3_long"


@pytest.mark.parametrize(
    "family",
    [
        pytest.param("llama3", marks=pytest.mark.full),
        pytest.param("mistral", marks=pytest.mark.full),
        pytest.param("qwen3", marks=pytest.mark.full),
        "gemma2",
        "gpt2",
        pytest.param("gpt_oss", marks=pytest.mark.full),
    ],
)
async def test_one_shard(tmp_path: Path, family: str) -> None:
    checkpoint = make_checkpoint(tmp_path / "model", family)
    arguments = ("--model-id", str(checkpoint), "--dtype", "float32", "--device", "cpu")
    environment = {"OMP_NUM_THREADS": THREADS.get(family, "1")}
    with running_server(tmp_path, *arguments, *TINY_POOL, env=environment) as server:
        await mixed_run(server, ReferenceModel(checkpoint), seed=len(family))


@pytest.mark.parametrize(
    ("family", "shards"),
    [
        ("llama3", 2),
        pytest.param("qwen3", 2, marks=pytest.mark.full),
        pytest.param("llama3", 4, marks=pytest.mark.full),
        pytest.param("falcon_new", 2, marks=pytest.mark.full),
        pytest.param("gpt_oss", 2, marks=pytest.mark.full),
        pytest.param("olmo2", 2, marks=pytest.mark.full),
    ],
)
async def test_several_shards(tmp_path: Path, family: str, shards: int) -> None:
    checkpoint = make_checkpoint(tmp_path / "model", family)
    arguments = ("--model-id", str(checkpoint), "--dtype", "float32", "--device", "cpu")
    with running_server(tmp_path, *arguments, *TINY_POOL, "--num-shard", str(shards)) as server:
        await mixed_run(server, ReferenceModel(checkpoint), seed=shards)


async def test_an_fp8_checkpoint(tmp_path: Path) -> None:
    """In blocks, as DeepSeek writes them; its numbers are those of a dense one."""
    checkpoint, twin = make_checkpoint(tmp_path / "model", "qwen3"), tmp_path / "twin"
    quantise_checkpoint(checkpoint, "block", twin)
    arguments = ("--model-id", str(checkpoint), "--dtype", "float32", "--device", "cpu")
    with running_server(tmp_path, *arguments, *TINY_POOL, "--num-shard", "2") as server:
        await mixed_run(server, ReferenceModel(twin), seed=8)


@pytest.mark.full
@pytest.mark.parametrize("name", ["gptq-act-order", "awq"])
async def test_a_checkpoint_in_whole_numbers(tmp_path: Path, name: str) -> None:
    """Named by the option, on two shards; its numbers are those of a dense one."""
    checkpoint, twin = make_checkpoint(tmp_path / "model", "llama3"), tmp_path / "twin"
    integer_checkpoints.quantise_checkpoint(checkpoint, name, twin)
    arguments = ("--model-id", str(checkpoint), "--dtype", "float32", "--device", "cpu")
    option = ("--num-shard", "2", "--quantize", name.partition("-")[0])
    with running_server(tmp_path, *arguments, *TINY_POOL, *option) as server:
        await mixed_run(server, ReferenceModel(twin), seed=8)


@pytest.mark.parametrize(
    ("family", "name"),
    [("mixtral", "packed"), ("qwen3_moe", "awq")],
)
@pytest.mark.full
async def test_experts_in_four_bits(tmp_path: Path, family: str, name: str) -> None:
    """On two shards, which cut each expert through its groups."""
    sizes = {"intermediate_size": 128} | ({"moe_intermediate_size": 64} if "qwen" in family else {})
    checkpoint, twin = make_checkpoint(tmp_path / "model", family, **sizes), tmp_path / "twin"
    integer_checkpoints.quantise_checkpoint(checkpoint, name, twin)
    arguments = ("--model-id", str(checkpoint), "--dtype", "float32", "--device", "cpu")
    with running_server(tmp_path, *arguments, *TINY_POOL, "--num-shard", "2") as server:
        await mixed_run(server, ReferenceModel(twin), seed=5)


async def test_a_kv_cache_in_fp8(tmp_path: Path) -> None:
    """Prefixes, copies of blocks and sequences that resume among them."""
    checkpoint = make_checkpoint(tmp_path / "model", "qwen3")
    arguments = ("--model-id", str(checkpoint), "--dtype", "float32", "--device", "cpu")
    more = ("--num-shard", "2", "--kv-cache-dtype", "fp8")
    with running_server(tmp_path, *arguments, *TINY_POOL, *more) as server:
        async with aiohttp.ClientSession(server.url) as session, session.get("/info") as answer:
            assert (await answer.json())["kv_cache_dtype"] == "float8_e4m3fn"
        await mixed_run(server, ReferenceModel(checkpoint, torch.float8_e4m3fn), seed=9, near=1e-2)


@pytest.mark.gpu
@pytest.mark.parametrize("family", [family for family in FAMILIES if family != BY_LIMIT])
async def test_one_gpu(tmp_path: Path, family: str) -> None:
    checkpoint = make_checkpoint(tmp_path / "model", family)
    arguments = ("--model-id", str(checkpoint), "--dtype", "float32", "--device", "cuda")
    with running_server(tmp_path, *arguments, *TINY_POOL) as server:
        await mixed_run(server, ReferenceModel(checkpoint), seed=len(family))


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("family", ["llama3", "qwen3"])
async def test_two_gpus(tmp_path: Path, family: str) -> None:
    checkpoint = make_checkpoint(tmp_path / "model", family)
    arguments = ("--model-id", str(checkpoint), "--dtype", "float32", "--num-shard", "2")
    with running_server(tmp_path, *arguments, *TINY_POOL) as server:
        await mixed_run(server, ReferenceModel(checkpoint), seed=len(family))
