"""The table of families: what config.json says, as switches, or a sentence that refuses it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from penstock_shard import architecture
from penstock_shard.architecture import Architecture, parse_architecture, read_architecture
from support.checkpoints import FAMILIES, make_checkpoint

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
}


def parse(family: str = "Llama", **changes: Any) -> Architecture:
    return parse_architecture(LLAMA | {"architectures": [f"{family}ForCausalLM"]} | changes)


def switches(model: Architecture) -> tuple[bool, bool, bool, bool]:
    return model.qkv_bias, model.output_bias, model.mlp_bias, model.qk_norm


def test_every_family_has_a_test() -> None:
    assert set(architecture.FAMILIES) == {
        f"{name}ForCausalLM" for name in ("Llama", "Mistral", "Qwen2", "Qwen3")
    }


def test_switches_of_each_family() -> None:
    assert switches(parse("Llama")) == (False, False, False, False)
    assert switches(parse("Llama", attention_bias=True)) == (True, True, False, False)
    assert switches(parse("Llama", mlp_bias=True)) == (False, False, True, False)
    assert switches(parse("Mistral", attention_bias=True)) == (False, False, False, False)
    assert switches(parse("Qwen2")) == (True, False, False, False)
    assert switches(parse("Qwen3")) == (False, False, False, True)
    assert switches(parse("Qwen3", attention_bias=True)) == (True, True, False, True)


def test_windows_of_each_family() -> None:
    sliding = ["full_attention", "sliding_attention", "full_attention"]
    assert parse("Llama", sliding_window=7).windows == (None,) * 3
    assert parse("Mistral", sliding_window=7).windows == (7,) * 3
    assert parse("Mistral", sliding_window=None).windows == (None,) * 3
    assert parse("Mistral").windows == (4096,) * 3  # transformers' default
    assert parse("Qwen2", sliding_window=7).windows == (None,) * 3  # not switched on
    on = {"use_sliding_window": True, "sliding_window": 7}
    assert parse("Qwen2", **on, max_window_layers=2).windows == (None, None, 7)
    assert parse("Qwen3", **on, layer_types=sliding).windows == (None, 7, None)
    assert parse("Qwen2", **on).windows == (None,) * 3  # from layer 28 on


def test_sizes() -> None:
    model = parse(head_dim=24, tie_word_embeddings=True, torch_dtype="bfloat16")
    assert (model.head_dim, model.tied_embeddings, model.dtype) == (24, True, "bfloat16")
    assert parse().head_dim == 16 and parse().dtype is None and parse().norm_eps == 1e-5
    assert parse(head_dim=None).head_dim == 16
    assert parse(num_key_value_heads=None).num_kv_heads == 4
    assert parse("Qwen3").head_dim == 128


def test_positions_include_the_scaling() -> None:
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}
    assert parse(rope_parameters=yarn).max_positions == 2048
    assert parse(rope_parameters=yarn, max_position_embeddings=2048).max_positions == 2048
    linear = {"rope_type": "linear", "factor": 2.0}
    assert parse(rope_parameters=linear).max_positions == 1024
    llama3 = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 64}
    assert parse(rope_parameters=llama3).max_positions == 512


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"architectures": ["MambaForCausalLM"]}, "architecture MambaForCausalLM is not supported; "),
    ({"architectures": None}, r"architecture \(none given\) is not supported"),
    ({"hidden_act": "gelu"}, "hidden_act 'gelu' is not supported; supported: silu"),
    ({"quantization_config": {"quant_method": "gptq"}}, "quant_method 'gptq' is not supported"),
    ({"num_hidden_layers": 0}, "num_hidden_layers must be a positive integer, not 0"),
    ({"vocab_size": "100"}, "vocab_size must be a positive integer, not '100'"),
    ({"intermediate_size": None}, "intermediate_size must be a positive integer, not None"),
    ({"hidden_size": True}, "hidden_size must be a positive integer, not True"),
    ({"num_key_value_heads": 3}, "num_attention_heads 4 is no multiple of 3 KV heads"),
    ({"hidden_size": 66}, "hidden_size 66 is no multiple of num_attention_heads 4"),
    ({"head_dim": 15}, "head_dim 15 is odd"),
    ({"dtype": "float8_e4m3fn"}, "dtype 'float8_e4m3fn' is not supported"),
    ({"rope_scaling": {"type": "su", "factor": 2}}, "rope type 'su' is not supported"),
    (
        {"architectures": ["Qwen2ForCausalLM"], "layer_types": ["full_attention"]},
        "layer_types has 1 entries for 3 layers",
    ),
    (
        {"architectures": ["Qwen3ForCausalLM"], "layer_types": ["linear_attention"] * 3},
        r"layer_types \['linear_attention'\] are not supported",
    ),
    (
        {
            "architectures": ["MistralForCausalLM"],
            "layer_types": ["full_attention", "sliding_attention", "full_attention"],
        },
        "layer_types that differ between layers are not supported in this family",
    ),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED, ids=lambda value: str(value)[:40])
def test_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_architecture(LLAMA | changes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "has no config.json, so it is no model folder"),
        ("{", "is not valid JSON"),
        ("[1]", "holds a JSON list, not an object"),
        ('{"architectures": 3}', "config.json: "),
        (json.dumps(LLAMA | {"vocab_size": -1}), "config.json: vocab_size must be a positive"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_architecture(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("family", FAMILIES)
def test_config_as_transformers_writes_it(tmp_path: Path, family: str) -> None:
    """What save_pretrained leaves out or renames must come out as transformers reads it back."""
    from transformers import AutoConfig

    folder = make_checkpoint(tmp_path, family)
    model, config = read_architecture(folder), AutoConfig.from_pretrained(folder)
    assert model.num_kv_heads == config.num_key_value_heads
    assert model.head_dim == (getattr(config, "head_dim", None) or 16)
    assert model.tied_embeddings == config.tie_word_embeddings
    assert model.norm_eps == config.rms_norm_eps
    assert model.rope.theta == config.rope_parameters["rope_theta"]
    assert model.rope.kind == config.rope_parameters["rope_type"]
    assert model.dtype == "float32"
