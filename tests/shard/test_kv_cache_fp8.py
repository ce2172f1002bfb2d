"""A KV cache in FP8: tokens are those of transformers with keys and values rounded to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from penstock_quantization.kv_scheme import declared_kv_cache
from penstock_shard.memory.kv_cache import bytes_per_token
from shard.test_families import COUNT, OTHERS, TEXTS, greedy
from support.checkpoints import FAMILIES, make_checkpoint
from support.fp8_checkpoints import quantise_checkpoint
from support.joined_ranks import joined_ranks
from support.local_shard import LocalShard, interpret, load_model
from support.reference import ReferenceModel, no_scales

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
SCHEME = {"type": "float", "num_bits": 8, "strategy": "tensor", "dynamic": False}
pytestmark = [
    pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning:triton"),
    pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning"),
]


def expected_of(reference: ReferenceModel) -> tuple[list[list[int]], list[list[int]]]:
    """Prompts, and what follows them."""
    prompts = [reference.tokenizer.encode(text).ids for text in TEXTS]
    return prompts, [reference.generate(text, COUNT).tokens for text in TEXTS]


def scales_of(layer: int) -> tuple[float, float]:
    """Such that numbers come near the largest of FP8, and below the least normal one."""
    return 0.002 * (layer + 1), 7.0 / (layer + 1)


def with_scales(folder: Path, names: tuple[str, str], config: dict[str, Any]) -> None:
    """Write scales beside the attention of a checkpoint of Llama's names."""
    tensors = load_file(folder / "model.safetensors")
    for layer in range(3):
        for name, scale in zip(names, scales_of(layer), strict=True):
            tensors[f"model.layers.{layer}.self_attn.{name}"] = torch.tensor(scale)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    path = folder / "config.json"
    given = json.loads(path.read_text())
    given["quantization_config"] = given.get("quantization_config", {}) | config
    if not given["quantization_config"]:
        del given["quantization_config"]
    path.write_text(json.dumps(given))


FEW = (("llama_bias", 1), ("mistral", 1), ("gemma2", 2), ("phi3_long", 1), ("falcon_new", 1))
CASES = [
    pytest.param(name, shards, marks=() if (name, shards) in FEW else pytest.mark.full)
    for name in FAMILIES
    for shards in (1, 2)
]


@pytest.mark.parametrize(("family", "shards"), CASES)
def test_parity(checkpoint: Callable[[str], Path], family: str, shards: int) -> None:
    folder = checkpoint(family)
    dtype, name = [(E4M3, "fp8_e4m3fn"), (E5M2, "fp8_e5m2")][FAMILIES.index(family) % 2]
    prompts, expected = expected_of(ReferenceModel(folder, dtype))
    if shards == 1:
        found = greedy(LocalShard(load_model(folder, kv_cache_dtype=name)), prompts)
    else:
        found = joined_ranks(
            folder, shards, lambda shard: greedy(shard, prompts), kv_cache_dtype=name
        )
    assert agreement(found, expected) == 1


def agreement(found: list[list[int]], expected: list[list[int]]) -> float:
    """Share of the texts that are equal."""
    return sum(map(list.__eq__, found, expected)) / len(expected)


def test_it_is_not_that_of_the_models_own_type(tmp_path: Path) -> None:
    """Else the others would show nothing."""
    folder = make_checkpoint(tmp_path / "model", "llama2")
    prompts, expected = expected_of(ReferenceModel(folder))
    assert greedy(LocalShard(load_model(folder, kv_cache_dtype="fp8_e5m2")), prompts) != expected


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(("k_scale", "v_scale"), marks=pytest.mark.full),
        ("k_proj.k_scale", "v_proj.v_scale"),
        pytest.param(("k_proj.output_scale", "v_proj.output_scale"), marks=pytest.mark.full),
    ],
    ids=str,
)
def test_scales_of_the_checkpoint(
    tmp_path: Path, own_checkpoint: Callable[..., Path], names: tuple[str, str]
) -> None:
    """Whatever they are called, as one rank and as two."""
    folder, dense = own_checkpoint("llama3"), own_checkpoint("llama3")
    with_scales(folder, names, {})
    prompts, expected = expected_of(ReferenceModel(dense, E4M3, scales_of))
    shard = LocalShard(load_model(folder, kv_cache_dtype="fp8"))
    assert agreement(greedy(shard, prompts), expected) == 1
    work: Callable[[LocalShard], list[list[int]]] = lambda shard: greedy(shard, prompts)  # noqa: E731
    assert agreement(joined_ranks(folder, 2, work, kv_cache_dtype="fp8"), expected) == 1
    # They mean nothing where the cache is no FP8.
    _, plain = expected_of(ReferenceModel(dense))
    assert greedy(LocalShard(load_model(folder)), prompts) == plain


def test_auto_is_what_the_checkpoint_was_made_for(own_checkpoint: Callable[..., Path]) -> None:
    folder, twin = own_checkpoint("llama3"), own_checkpoint("llama3").with_name("twin")
    quantise_checkpoint(folder, "ct-channel", twin)
    with_scales(folder, ("k_scale", "v_scale"), {"kv_cache_scheme": SCHEME})
    loaded = load_model(folder)
    assert loaded.info().kv_cache_dtype == "float8_e4m3fn" and loaded.info().dtype == "float32"
    prompts, expected = expected_of(ReferenceModel(twin, E4M3, scales_of))
    assert agreement(greedy(LocalShard(loaded), prompts), expected) == 1
    assert load_model(folder, kv_cache_dtype="fp8_e5m2").info().kv_cache_dtype == "float8_e5m2"


def test_a_checkpoint_whose_cache_alone_is_quantised(own_checkpoint: Callable[..., Path]) -> None:
    """As compressed-tensors writes it: the matrices are half precision."""
    folder, dense = own_checkpoint("llama3"), own_checkpoint("llama3")
    config = {"quant_method": "compressed-tensors", "format": "dense", "config_groups": {}}
    with_scales(folder, ("k_scale", "v_scale"), config | {"kv_cache_scheme": SCHEME})
    prompts, expected = expected_of(ReferenceModel(dense, E4M3, scales_of))
    assert agreement(greedy(LocalShard(load_model(folder)), prompts), expected) == 1


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, None),
        ({"kv_cache_scheme": None}, None),
        ({"kv_cache_scheme": SCHEME}, "float8_e4m3fn"),
        ({"kv_cache_scheme": SCHEME | {"dynamic": True}}, None),
        ({"kv_cache_scheme": SCHEME | {"type": "int"}}, None),
        ({"kv_cache_scheme": SCHEME | {"strategy": "attn_head"}}, None),
        ({"kv_cache_scheme": "static"}, "float8_e4m3fn"),
        ({"kv_cache_quant_algo": "FP8"}, "float8_e4m3fn"),
        ({"kv_cache_quant_algo": "NVFP4"}, None),
    ],
)
def test_what_a_checkpoint_was_made_for(given: dict[str, Any], expected: str | None) -> None:
    assert declared_kv_cache({"quantization_config": {"quant_method": "fp8"} | given}) == expected


@pytest.mark.parametrize(
    ("scale", "problem"),
    [
        (torch.tensor(0.0), "k_scale is 0.0, but a scale is a positive number"),
        (torch.tensor(float("nan")), "k_scale is nan"),
        (torch.ones(2), r"k_scale has shape \[2\]: .* only one for each layer is supported"),
    ],
)
def test_scales_that_are_none(
    own_checkpoint: Callable[..., Path], scale: torch.Tensor, problem: str
) -> None:
    folder = own_checkpoint("llama3")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.self_attn.k_scale"] = scale
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=problem):
        load_model(folder, kv_cache_dtype="fp8")
    load_model(folder)


def test_it_takes_a_byte_a_number(checkpoint: Callable[[str], Path]) -> None:
    loaded = load_model(checkpoint("llama3"), kv_cache_dtype="fp8", dtype="bfloat16")
    plain = load_model(checkpoint("llama3"), dtype="bfloat16")
    assert 2 * bytes_per_token(loaded.decoder) == bytes_per_token(plain.decoder)
    assert loaded.info().kv_bytes_per_token == bytes_per_token(loaded.decoder)
    cache = LocalShard(loaded).runner.cache
    assert cache.dtype == E4M3 and loaded.info().dtype == "bfloat16"


@pytest.mark.parametrize("family", ["llama3", pytest.param("gemma2", marks=pytest.mark.full)])
def test_kernels_compute_what_torch_does(tmp_path: Path, family: str) -> None:
    """By Triton's interpreter, as graphs: with soft caps and windows too."""
    folder = make_checkpoint(tmp_path / "model", family)
    loaded = load_model(folder, kv_cache_dtype="fp8_e4m3fn")
    prompt = list(range(3, 24))

    def tokens(shard: LocalShard) -> list[int]:
        return [shard.start(0, prompt), *shard.decode([0], 3)[0]]

    assert tokens(interpret(LocalShard(loaded), loaded, (1,))) == tokens(LocalShard(loaded))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["llama3", "mistral", "qwen3", *OTHERS[::2]])
def test_parity_on_a_gpu(tmp_path: Path, family: str, dtype: str) -> None:
    """Near ties in FP8 are decided by rounding, and all behind them with them."""
    wide = {"head_dim": 64} if family in ("llama3", "mistral", "qwen3") else {}
    folder = make_checkpoint(tmp_path / "model", family, **wide)
    loaded = load_model(folder, device="cuda", dtype=dtype, kv_cache_dtype="fp8")
    prompts, expected = expected_of(ReferenceModel(folder, E4M3, no_scales))
    found = greedy(LocalShard(loaded), prompts)
    if dtype == "float32":
        assert agreement(found, expected) > 0.6
    else:
        assert sum(one[0] == other[0] for one, other in zip(found, expected, strict=True)) >= 2
