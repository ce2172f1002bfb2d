"""gpt-oss: what its files say, and experts in MXFP4. Parity is in `test_families.py` too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from penstock_quantization.methods import check_quantize
from penstock_shard.model.architecture import Architecture, parse_architecture, read_architecture
from penstock_shard.ranks.parallel import Group
from penstock_shard.weights.checkpoint import Checkpoint, DummyWeights
from penstock_shard.weights.load_weights import device_bytes
from penstock_shard.weights.quantize import main as quantize
from support.checkpoints import make_checkpoint
from support.joined_ranks import joined_ranks
from support.local_shard import LocalShard, load_model
from support.mxfp4_experts import quantise_experts
from support.reference import ReferenceModel

TEXTS = ("Water runs through steel pipes into the penstock", "The river", "a")
COUNT = 40  # longer than the window
# What matters of openai/gpt-oss-20b's config.json; the larger one differs in two numbers.
SMALL: dict[str, Any] = {
    "architectures": ["GptOssForCausalLM"],
    "attention_bias": True,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 2880,
    "initial_context_length": 4096,
    "intermediate_size": 2880,
    "layer_types": ["sliding_attention", "full_attention"] * 12,
    "max_position_embeddings": 131072,
    "model_type": "gpt_oss",
    "num_attention_heads": 64,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 24,
    "num_key_value_heads": 8,
    "num_local_experts": 32,
    "quantization_config": {
        "modules_to_not_convert": [
            *("model.layers.*.self_attn", "model.layers.*.mlp.router"),
            *("model.embed_tokens", "lm_head"),
        ],
        "quant_method": "mxfp4",
    },
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "factor": 32.0,
        "original_max_position_embeddings": 4096,
        "rope_type": "yarn",
        "truncate": False,
    },
    "rope_theta": 150000,
    "sliding_window": 128,
    "swiglu_limit": 7.0,
    "tie_word_embeddings": False,
    "vocab_size": 201088,
}
LARGE = {
    **SMALL,
    "layer_types": SMALL["layer_types"][:2] * 18,
    "num_hidden_layers": 36,
    "num_local_experts": 128,
}


@pytest.fixture
def quantised(tmp_path: Path) -> tuple[Path, Path]:
    """A checkpoint in MXFP4, and its twin in float32."""
    folder = make_checkpoint(tmp_path / "model", "gpt_oss")
    quantise_experts(folder, tmp_path / "twin")
    return folder, tmp_path / "twin"


def greedy(shard: LocalShard, prompts: list[list[int]]) -> list[list[int]]:
    first = [shard.start(slot, prompt) for slot, prompt in enumerate(prompts)]
    rest = shard.decode(range(len(prompts)), COUNT - 1)
    return [[token, *more] for token, more in zip(first, rest, strict=True)]


@pytest.mark.parametrize("shards", [1, 2])
def test_experts_in_mxfp4(quantised: tuple[Path, Path], shards: int) -> None:
    """Two ranks cut blocks of 32 inputs in half."""
    folder, twin = quantised
    reference = ReferenceModel(twin)
    prompts = [reference.tokenizer.encode(text).ids for text in TEXTS]
    if shards == 1:
        found = greedy(LocalShard(load_model(folder, quantize="mxfp4")), prompts)
    else:
        found = joined_ranks(folder, shards, lambda shard: greedy(shard, prompts))
    guesses = zip(TEXTS, found, strict=True)
    expected = [reference.generate(text, COUNT, guess).tokens for text, guess in guesses]
    assert found == expected


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_experts_in_mxfp4_on_a_gpu(tmp_path: Path, dtype: str) -> None:
    """Packed on the device, in CUDA graphs, with heads that Hopper's kernels take."""
    folder, twin = make_checkpoint(tmp_path / "model", "gpt_oss", head_dim=64), tmp_path / "twin"
    quantise_experts(folder, twin)
    reference = ReferenceModel(twin)
    prompts = [reference.tokenizer.encode(text).ids for text in TEXTS]
    expected = [reference.generate(text, COUNT).tokens for text in TEXTS]
    found = greedy(LocalShard(load_model(folder, device="cuda", dtype=dtype)), prompts)
    if dtype == "float32":
        assert found == expected
    else:  # near ties are decided by rounding, and all behind them with them
        assert sum(one[0] == other[0] for one, other in zip(found, expected, strict=True)) >= 2


def test_what_the_files_of_openai_say() -> None:
    model = parse_architecture(SMALL)
    assert model.windows == (128, None) * 12
    assert (model.qkv_bias, model.output_bias, model.act) == (True, True, "silu")
    experts, [rope] = model.experts, model.ropes
    assert experts is not None
    assert (experts.count, experts.top, experts.inner) == (32, 4, 2880)
    assert all(experts.layers) and experts.normalised
    assert (rope.kind, rope.theta, rope.factor, rope.truncate) == ("yarn", 150000, 32, False)
    assert rope.attention_factor == pytest.approx(1.3466, abs=1e-4)
    assert (model.max_positions, model.scale) == (131072, 0.125)
    assert model.scheme is not None and model.scheme.format == "mxfp4"
    assert 20.8e9 < model.parameters < 21e9
    assert 116.5e9 < parse_architecture(LARGE).parameters < 117e9


def test_a_config_that_leaves_out_what_is_usual() -> None:
    short = {
        key: value
        for key, value in SMALL.items()
        if key not in ("layer_types", "rope_scaling", "rope_theta", "sliding_window", "head_dim")
    }
    whole, sparse = parse_architecture(SMALL), parse_architecture(short)
    assert (sparse.windows, sparse.ropes, sparse.head_dim) == (whole.windows, whole.ropes, 64)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"swiglu_limit": 8.0}, "swiglu_limit 8.0 is not supported; supported: 7.0"),
        ({"num_experts_per_tok": 33}, "num_experts_per_tok 33 is more than num_local_experts 32"),
        ({"layer_types": ["full_attention"]}, "layer_types has 1 entries for 24 layers"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        parse_architecture(SMALL | changes)


def test_a_quantize_that_contradicts() -> None:
    with pytest.raises(ValueError, match="the checkpoint is mxfp4 already"):
        check_quantize("fp8", parse_architecture(SMALL).scheme)


def size_of(model: Architecture, shards: int = 1, quantize: str | None = None) -> float:
    """GB that the weights of a rank take."""
    group = Group(0, shards)
    return device_bytes(model, group, DummyWeights(), torch.bfloat16, quantize) / 1e9


@pytest.mark.parametrize(
    ("config", "gigabytes"), [(SMALL, 13.8), pytest.param(LARGE, 65.2, marks=pytest.mark.full)]
)
def test_experts_stay_packed_on_a_gpu(config: dict[str, Any], gigabytes: float) -> None:
    assert size_of(parse_architecture(config)) == pytest.approx(gigabytes, rel=0.01)
    half = size_of(parse_architecture(config), 2)
    assert half == pytest.approx(gigabytes / 2, rel=0.02)


def test_ranks_that_cut_blocks_too_small() -> None:
    """2880 inputs over 8 ranks are 360 each: parts of 8."""
    with pytest.raises(ValueError, match="blocks of 32, which cannot be cut into parts of 360"):
        size_of(parse_architecture(SMALL), 8)


def test_tensors_that_do_not_fit(quantised: tuple[Path, Path]) -> None:
    folder, _ = quantised
    path = folder / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.layers.1.self_attn.sinks"]
    name = "model.layers.2.mlp.experts.down_proj_scales"
    tensors[name] = tensors[name][:, :, :1].contiguous()
    save_file(tensors, path, metadata={"format": "pt"})
    model = read_architecture(folder)
    weights = Checkpoint(folder, model.family.names)
    with pytest.raises(ValueError) as raised:
        device_bytes(model, Group(), weights, torch.float32)
    assert "tensor model.layers.1.self_attn.sinks is missing" in str(raised.value)
    assert f"tensor {name} has shape [6, 64, 1], but config.json makes it" in str(raised.value)


def test_a_format_that_only_the_option_names(tmp_path: Path) -> None:
    """Dense experts are not MXFP4 because an option says so."""
    folder = make_checkpoint(tmp_path / "model", "gpt_oss")
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    with pytest.raises(ValueError, match="--quantize mxfp4 says what a checkpoint is"):
        load_model(folder, quantize="mxfp4")


def test_files_that_are_not_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_checkpoint(tmp_path / "model", "gpt_oss")
    wanted = ["--model-id", str(folder), "--output", str(tmp_path / "out"), "--format", "fp8"]
    assert quantize(wanted) != 0
    assert "holds a layer's experts in one tensor" in capsys.readouterr().err


@pytest.mark.parametrize("quantize", ["fp8", "bitsandbytes-nf4", "eetq"])
def test_experts_that_are_quantised_at_load(tmp_path: Path, quantize: str) -> None:
    """Biases and all."""
    folder = make_checkpoint(tmp_path / "model", "gpt_oss")
    plain, shard = (LocalShard(load_model(folder, quantize=q)) for q in (None, quantize))
    prompt = list(range(3, 24))
    assert plain.start(0, prompt) == shard.start(0, prompt)
