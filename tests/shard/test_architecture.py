"""The table of families: what config.json says, as switches, or a sentence that refuses it."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from penstock_shard.model import families
from penstock_shard.model.architecture import Architecture, parse_architecture, read_architecture
from support.assets import assets, needs_assets
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


def switches(model: Architecture) -> tuple[bool, bool, bool, str | None]:
    return model.qkv_bias, model.output_bias, model.mlp_bias, model.qk_norm


def test_every_family_has_a_checkpoint(tmp_path: Path) -> None:
    made = {read_architecture(make_checkpoint(tmp_path / name, name)).name for name in FAMILIES}
    assert made == set(families.FAMILIES)


def test_switches_of_each_family() -> None:
    assert switches(parse("Llama")) == (False, False, False, None)
    assert switches(parse("Llama", attention_bias=True)) == (True, True, False, None)
    assert switches(parse("Llama", mlp_bias=True)) == (False, False, True, None)
    assert switches(parse("Mistral", attention_bias=True)) == (False, False, False, None)
    assert switches(parse("Qwen2")) == (True, False, False, None)
    assert switches(parse("Qwen3")) == (False, False, False, "head")
    assert switches(parse("Qwen3", attention_bias=True)) == (True, True, False, "head")
    assert switches(parse("Olmo2")) == (False, False, False, "joint")
    assert switches(parse("Olmo2", attention_bias=True)) == (True, True, False, "joint")


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


@pytest.mark.parametrize(
    ("model_type", "spelt"), [("llama", "LLaMAForCausalLM"), ("Yi", "YiForCausalLM")]
)
def test_A10_other_spellings(model_type: str, spelt: str) -> None:
    config = LLAMA | {"model_type": model_type, "architectures": [spelt]}
    assert parse_architecture(config).name == "LlamaForCausalLM"


def test_n3_A10_served_by_model_type() -> None:
    """As old and hand-made files are spelt."""

    def name(**fields: Any) -> str:
        config = {key: value for key, value in LLAMA.items() if key != "architectures"}
        return parse_architecture(config | fields).name

    assert name(model_type="llama") == "LlamaForCausalLM"
    assert name(model_type="llama", architectures=[]) == "LlamaForCausalLM"
    assert name(model_type="mistral", architectures=None) == "MistralForCausalLM"
    assert name(model_type="odd", architectures=["Qwen3ForCausalLM"]) == "Qwen3ForCausalLM"
    for other in ("LlamaForSequenceClassification", "LlamaModel"):
        with pytest.raises(ValueError, match=f"architecture {other} is not supported"):
            name(model_type="llama", architectures=[other])


NAN, INFINITY = float("nan"), float("inf")
IMPOSSIBLE: dict[str, list[Any]] = {
    "vocab_size": [0, -1, 10**12, 1.5, NAN],
    "hidden_size": [0, 2**20, "64", [64], 64.0],
    "intermediate_size": [10**9, -96],
    "num_hidden_layers": [0, 10**9, 10**400],
    "num_attention_heads": [0, 10**6],
    "num_key_value_heads": [0, 10**6, "4"],
    "head_dim": [0, -2, 10**6],
    "max_position_embeddings": [0, 10**12, INFINITY],
    "rms_norm_eps": [NAN, INFINITY, -1e-5, 0, 2, "1e-5"],
    "rope_theta": [0, -1.0, NAN, INFINITY, "1e4"],
}


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field in IMPOSSIBLE for value in IMPOSSIBLE[field]]
)
def test_m3_m7_numbers_that_cannot_be(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{field} must be a "):
        parse(**{field: value})


@pytest.mark.parametrize("value", [0, -1, 10**12, "24", 2.5])
def test_m3_windows_that_cannot_be(value: Any) -> None:
    for family, on in (("Mistral", {}), ("Qwen2", {"use_sliding_window": True})):
        with pytest.raises(ValueError, match="^sliding_window must be a whole number from 1"):
            parse(family, sliding_window=value, **on)
    assert parse("Qwen2", sliding_window=value).windows == (None,) * 3  # not switched on


@pytest.mark.parametrize(
    ("rope", "field"),
    [
        ({"rope_type": "linear", "factor": NAN}, "factor"),
        ({"rope_type": "linear", "factor": 1e9}, "factor"),
        ({"rope_type": "linear", "factor": 65536}, "max_position_embeddings"),  # with 512: 2^25
        ({"rope_type": "yarn", "factor": 2, "beta_fast": 0}, "beta_fast"),
        ({"rope_type": "yarn", "factor": 2, "attention_factor": -1}, "attention_factor"),
        ({"rope_type": "yarn", "original_max_position_embeddings": 10**12}, "original_max_pos"),
        ({"rope_type": "llama3", "factor": 8, "low_freq_factor": 4}, "high_freq_factor"),
    ],
)
def test_m7_scalings_that_cannot_be(rope: dict[str, Any], field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field}.* must be"):
        parse(rope_parameters=rope)


ROPE = (
    *("rope_type", "type", "factor", "rope_theta", "partial_rotary_factor", "truncate"),
    *("original_max_position_embeddings", "low_freq_factor", "high_freq_factor", "beta_fast"),
    *("beta_slow", "attention_factor", "mscale", "mscale_all_dim"),
    *("short_factor", "long_factor", "full_attention", "sliding_attention"),
)
ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**12, 2**63, 10**400, 0, -1, 1, 2, 4, 128])
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(
        ["linear", "dynamic", "llama3", "yarn", "longrope", "default", "sliding_attention"]
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(ROPE), inner, max_size=4)
    ),
    max_leaves=6,
)


FIELDS = st.dictionaries(
    st.sampled_from(
        [
            *LLAMA,
            *("model_type", "head_dim", "rope_theta", "rope_scaling", "rope_parameters"),
            *("sliding_window", "use_sliding_window", "max_window_layers", "layer_types"),
            *("hidden_act", "quantization_config", "dtype", "torch_dtype", "attention_bias"),
            *("tie_word_embeddings", "original_max_position_embeddings"),
            *("attn_logit_softcapping", "final_logit_softcapping", "query_pre_attn_scalar"),
            *("sliding_window_pattern", "rope_local_base_freq", "hidden_activation"),
            *("rotary_pct", "partial_rotary_factor", "use_parallel_residual", "layer_norm_eps"),
            *("num_kv_heads", "multi_query", "parallel_attn", "new_decoder_architecture", "alibi"),
            *("num_ln_in_parallel_attn", "n_embd", "n_inner", "activation_function"),
            *("embedding_multiplier", "residual_multiplier", "logit_scale", "rotary_dim"),
            *("no_rope_layers", "no_rope_layer_interval", "word_embed_proj_dim"),
            *("attention_types", "attention_layers", "window_size"),
        ]
    ),
    ODD,
    max_size=6,
)


@given(family=st.sampled_from([*families.FAMILIES, "x", None]), fields=FIELDS)
def test_m7_whatever_a_config_holds(family: str | None, fields: dict[str, Any]) -> None:
    """It is taken, or refused by a sentence; and what is taken is small."""
    with tempfile.TemporaryDirectory() as folder:
        config = LLAMA | {"architectures": [family]} | fields
        (Path(folder) / "config.json").write_text(json.dumps(config))
        try:
            model = read_architecture(Path(folder))
        except ValueError as error:
            assert len(str(error)) < 1000
        else:
            assert model.num_layers <= 1024 and model.max_positions <= 2**24
            assert all(math.isfinite(rope.theta) for rope in model.ropes)
            assert 0 < model.norm_eps <= 2**32
            assert len(model.rotates) == model.num_layers


def test_a_long_value_is_not_repeated_whole() -> None:
    with pytest.raises(ValueError, match="^vocab_size must be") as caught:
        parse(vocab_size="9" * 1_000_000)
    assert len(str(caught.value)) < 200


@needs_assets
def test_configurations_of_the_field_are_taken() -> None:
    """Rules must not refuse what is really served."""
    configs = json.loads((assets() / "configs" / "configs.json").read_text())
    configs.pop("v5/Qwen2 layer_types mixed")  # trimmed: three entries for 24 layers
    for config in configs.values():
        parse_architecture(config)


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_are_counted(tmp_path: Path, family: str) -> None:
    """But for the few of biases, sinks and norms of heads: the count is what files must hold."""
    folder = make_checkpoint(tmp_path, family)
    tensors = load_file(folder / "model.safetensors")
    left_out = ("bias", "sinks", "q_norm.weight", "k_norm.weight")
    found = sum(t.numel() for name, t in tensors.items() if not name.endswith(left_out))
    assert read_architecture(folder).parameters == found


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"architectures": ["MambaForCausalLM"]}, "architecture MambaForCausalLM is not supported; "),
    ({"architectures": None}, r"architecture \(none given\) is not supported"),
    ({"hidden_act": "mish"}, "hidden_act 'mish' is not supported; supported: silu"),
    ({"quantization_config": {"quant_method": "quip"}}, "quant_method 'quip' is not supported"),
    ({"num_hidden_layers": 0}, "num_hidden_layers must be a whole number from 1 to 1024, not 0"),
    ({"vocab_size": "100"}, "vocab_size must be a whole number from 1 to 16777216, not '100'"),
    ({"intermediate_size": None}, "intermediate_size must be a whole number .*, not None"),
    ({"hidden_size": True}, "hidden_size must be a whole number from 1 to 131072, not True"),
    ({"num_key_value_heads": 3}, "num_attention_heads 4 is no multiple of num_key_value_heads 3"),
    ({"hidden_size": 66}, "hidden_size 66 is no multiple of num_attention_heads 4"),
    ({"head_dim": 15}, "head_dim 15 is odd"),
    ({"dtype": "float8_e4m3fn"}, "dtype 'float8_e4m3fn' is not supported"),
    ({"rope_scaling": {"type": "odd", "factor": 2}}, "rope type 'odd' is not supported"),
    (
        {"rope_scaling": {"type": "su", "factor": 2}},
        "short_factor must be a list of numbers above 0, not None",
    ),
    (
        {"architectures": ["FalconForCausalLM"], "alibi": True},
        "alibi True is not supported; supported: False",
    ),
    ({"architectures": ["GPT2LMHeadModel"], "n_embd": 0}, "^n_embd must be a whole number"),
    (
        {"architectures": ["GPTNeoXForCausalLM"], "rotary_pct": 0.2},
        "rotary_pct 0.2 of head_dim 16 makes 3",
    ),
    (
        {"architectures": ["Gemma3ForCausalLM"], "use_bidirectional_attention": True},
        "use_bidirectional_attention True is not supported",
    ),
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
    (
        {"architectures": ["MixtralForCausalLM"], "num_experts_per_tok": 9},
        "num_experts_per_tok 9 is more than num_local_experts 8",
    ),
    (
        {"architectures": ["Qwen3MoeForCausalLM"], "mlp_only_layers": "all"},
        "mlp_only_layers must be a list of numbers of layers",
    ),
    (
        {"architectures": ["Qwen3MoeForCausalLM"], "moe_intermediate_size": 0},
        "moe_intermediate_size must be a whole number from 1",
    ),
    (
        {"architectures": ["OlmoeForCausalLM"], "clip_qkv": 8.0},
        "clip_qkv 8.0 is not supported",
    ),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED, ids=lambda value: str(value)[:40])
def test_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_architecture(LLAMA | changes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "is not valid JSON"),
        ('{"vocab_size": ' + "9" * 5000 + "}", "is not valid JSON"),
        (None, "has no config.json, so it is no model folder"),
        ("{", "is not valid JSON"),
        ("[1]", "holds a JSON list, not an object"),
        ('{"architectures": 3}', "config.json: "),
        (json.dumps(LLAMA | {"vocab_size": -1}), "config.json: vocab_size must be a whole"),
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
    kv_heads = getattr(config, "num_key_value_heads", None)
    if kv_heads is not None and "gpt_bigcode" not in family:  # which writes one, and reads none
        assert model.num_kv_heads == kv_heads
    assert model.head_dim == (getattr(config, "head_dim", None) or 16)
    assert model.tied_embeddings == config.tie_word_embeddings
    keys = ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon")
    residual = getattr(config, "residual_multiplier", 1.0)
    given = [getattr(config, key) / residual**2 for key in keys if hasattr(config, key)]
    assert model.norm_eps in (given or [1e-5])  # torch's own
    parameters = getattr(config, "rope_parameters", None) or {}
    found = [parameters] if "rope_type" in parameters else list(parameters.values())
    if family != "gptj":  # whose rotation follows from `rotary_dim` alone
        assert [(rope.kind, rope.theta) for rope in model.ropes] == [
            (one["rope_type"], one["rope_theta"]) for one in found
        ]
    assert model.dtype == "float32"
