"""The table of families: how their models differ from Llama's, and what they call their tensors.

A family is a row of FAMILIES. Adding one that the switches cover is a row, and a checkpoint in the
tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from penstock_shard.model.config_numbers import whole
from penstock_shard.model.rope_config import Rope, global_and_local_ropes, parse_rope

Config = Mapping[str, Any]
Windows = tuple[int | None, ...]
QKNormKind = Literal["head", "joint"] | None  # each head by itself, or all heads together


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Tensors of a family, without ".weight" and ".bias".

    A tensor that is named more than once holds those parts below one another.
    """

    embedding: str = "model.embed_tokens"
    positions: str | None = None  # a table of learned positions, added to the embedding
    norm: str = "model.norm"
    head: str = "lm_head"
    block: str = "model.layers.{}."  # what is in a block: this before the names below
    input_norm: str | None = "input_layernorm"  # before attention
    attention_norm: str | None = None  # behind it, in a sandwich
    mlp_norm: str | None = "post_attention_layernorm"  # before the MLP
    output_norm: str | None = None  # behind it, in a sandwich
    qkv: tuple[str, str, str] = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    qk_norms: tuple[str, str] = ("self_attn.q_norm", "self_attn.k_norm")
    sinks: str | None = None  # of attention, see `Step.attend`; the whole name of the tensor
    output: str = "self_attn.o_proj"
    up: tuple[str, ...] = ("mlp.gate_proj", "mlp.up_proj")  # two: the MLP is gated
    down: str = "mlp.down_proj"
    router: str = "mlp.gate"  # where rows choose among experts
    expert_up: tuple[str, str] = ("mlp.experts.{}.gate_proj", "mlp.experts.{}.up_proj")
    expert_down: str = "mlp.experts.{}.down_proj"
    shared_up: tuple[str, str] = ("mlp.shared_expert.gate_proj", "mlp.shared_expert.up_proj")
    shared_down: str = "mlp.shared_expert.down_proj"
    shared_gate: str = "mlp.shared_expert_gate"
    # What some files call tensors: (how names begin there, how they begin above).
    others: tuple[tuple[str, str], ...] = ()
    unserved: tuple[str, ...] = ()  # how tensors begin that are another model's in the same files

    @property
    def norms(self) -> tuple[str | None, ...]:
        """Of a block."""
        return self.input_norm, self.attention_norm, self.mlp_norm, self.output_norm


def _no_window(config: Config, layers: int) -> Windows:
    return (None,) * layers


def _one_window(config: Config, layers: int) -> Windows:
    """Mistral: every layer slides, unless sliding_window is null."""
    if len(set(_layer_types(config))) > 1:
        raise ValueError("layer_types that differ between layers are not supported in this family")
    return (_window(config),) * layers


def _named_window(config: Config, layers: int) -> Windows:
    """Phi-3: every layer slides, if there is a sliding_window."""
    return _one_window({"sliding_window": None, **config}, layers)


def _switched_window(config: Config, layers: int) -> Windows:
    """Qwen: layers slide from max_window_layers on, or as layer_types says, if switched on."""
    window = _window(config) if config.get("use_sliding_window") else None
    first = whole(config, "max_window_layers", 28)
    kinds = ["sliding_attention" if layer >= first else "full_attention" for layer in range(layers)]
    return _windows_by_kind(config, kinds, window)


def _alternating(period: int) -> Callable[[Config, int], Windows]:
    """Gemma: every layer slides but each `period`-th, unless layer_types says otherwise."""

    def windows(config: Config, layers: int) -> Windows:
        every = whole(config, "sliding_window_pattern", period)
        kinds = [
            "sliding_attention" if layer % every else "full_attention"
            for layer in range(1, layers + 1)
        ]
        return _windows_by_kind(config, kinds, _window(config))

    return windows


def _gpt_oss_windows(config: Config, layers: int) -> Windows:
    return _alternating(2)({"sliding_window": 128, **config}, layers)


def _windows_by_kind(config: Config, otherwise: list[str], window: int | None) -> Windows:
    kinds, layers = _layer_types(config) or otherwise, len(otherwise)
    if len(kinds) != layers:
        raise ValueError(f"layer_types has {len(kinds)} entries for {layers} layers")
    if unknown := set(kinds) - {"sliding_attention", "full_attention"}:
        raise ValueError(f"layer_types {sorted(unknown)} are not supported")
    return tuple(window if kind == "sliding_attention" else None for kind in kinds)


def _window(config: Config) -> int | None:
    """A null says that all is seen, which a key that is not there does not."""
    if "sliding_window" in config and config["sliding_window"] is None:
        return None
    return whole(config, "sliding_window", 4096)


def _layer_types(config: Config) -> list[str]:
    kinds = config.get("layer_types") or []
    if not isinstance(kinds, list) or not all(isinstance(kind, str) for kind in kinds):
        raise ValueError("layer_types must be a list of names")
    return kinds


def _one_rope(config: Config, positions: int) -> tuple[Rope, ...]:
    return (parse_rope(config, positions),)


def _partial_rope(config: Config, positions: int) -> tuple[Rope, ...]:
    return (parse_rope(config, positions, may_be_partial=True),)


def _gpt_oss_rope(config: Config, positions: int) -> tuple[Rope, ...]:
    if config.get("rope_parameters") or config.get("rope_scaling"):
        return _one_rope(config, positions)
    usual = {
        "rope_type": "yarn",
        "factor": 32.0,
        "original_max_position_embeddings": 4096,
        "truncate": False,
    }
    return _one_rope({**config, "rope_parameters": usual}, positions)


def _no_rope(config: Config, positions: int) -> tuple[Rope, ...]:
    return ()


def _as_it_is(family: Family, config: Config) -> Family:
    return family


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertKeys:
    """Keys of config.json that describe a family's experts, and what else they are."""

    counts: tuple[str, ...] = ("num_experts", "num_local_experts")  # the first that is there
    inner: str = "moe_intermediate_size"
    normalised: bool | str = "norm_topk_prob"  # see `experts.Experts`
    shared: str | None = None  # size of the MLP that every row takes as well
    # One tensor holds all experts: its names are `expert_up` and `expert_down`. See `stacked`.
    stacked: bool = False
    bias: bool = False  # of the router and of each expert
    act: str | None = None  # an `ops.Act`, whatever hidden_act says


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Switches of a family. A string names the key of config.json that decides, off by default."""

    names: Names = Names()
    block: Literal["sequential", "sandwich", "parallel"] = "sequential"
    norm: Literal["rms", "rms_one", "layer"] = "rms"
    qkv_bias: bool | str = False
    output_bias: bool | str = False
    mlp_bias: bool | str = False
    experts: ExpertKeys | None = None  # in layers that have them, instead of the MLP
    qk_norm: QKNormKind = None
    kv_heads: int | None = None  # whatever config.json says
    grouped_qkv: bool = False  # one tensor: of each KV head its queries, its key, its value
    transposed: bool = False  # matrices of a block are stored [inputs, outputs]
    windows: Callable[[Config, int], Windows] = _no_window
    # One table for all layers, none, or a second one for those that slide.
    ropes: Callable[[Config, int], tuple[Rope, ...]] = _one_rope
    query_scalar: bool = False  # query_pre_attn_scalar stands for the heads' width in the scale
    soft_caps: tuple[float | None, float | None] | None = None  # without keys: attention's, logits'
    scaled_embedding: bool = False  # by the root of hidden_size
    widening: int | None = None  # intermediate_size in hidden_sizes, if config.json does not say
    # Keys of config.json that have names of their own here: (the usual one, its own).
    keys: tuple[tuple[str, str], ...] = ()
    defaults: tuple[tuple[str, Any], ...] = ()  # values that config.json may leave out
    only: tuple[tuple[str, Any], ...] = ()  # the values of keys that are supported
    refine: Callable[[Family, Config], Family] = _as_it_is  # a row that config.json decides on

    def default_intermediate(self, hidden: int) -> int | None:
        """intermediate_size, where config.json may leave it out."""
        return None if self.widening is None else self.widening * hidden


def _gpt_neox(family: Family, config: Config) -> Family:
    if config["use_parallel_residual"]:
        return family
    return replace(family, block="sequential")


def _falcon(family: Family, config: Config) -> Family:
    """Three layouts of queries, keys and values; parallel by one norm or two, or sequential."""
    new = bool(config["new_decoder_architecture"])
    several = new or not config["multi_query"]  # KV heads
    names = family.names
    if new and config.get("num_ln_in_parallel_attn", 2) == 2:
        names = replace(names, input_norm="ln_attn", mlp_norm="ln_mlp")
    elif new or config["parallel_attn"]:
        names = replace(names, mlp_norm=None)
    parallel = new or config["parallel_attn"]
    return replace(
        family,
        names=names,
        block="parallel" if parallel else "sequential",
        grouped_qkv=several,
        kv_heads=None if several else 1,
    )


_POST_NORMS = Names(
    attention_norm="post_attention_layernorm",
    mlp_norm="pre_feedforward_layernorm",
    output_norm="post_feedforward_layernorm",
)
_GEMMA = Family(
    names=_POST_NORMS,
    block="sandwich",
    norm="rms_one",
    qkv_bias="attention_bias",
    output_bias="attention_bias",
    query_scalar=True,
    scaled_embedding=True,
    keys=(("hidden_act", "hidden_activation"),),
    only=(("use_bidirectional_attention", False),),
)
_GEMMA_DEFAULTS: tuple[tuple[str, Any], ...] = (
    ("hidden_act", "gelu_pytorch_tanh"),
    ("head_dim", 256),
    ("query_pre_attn_scalar", 256),
    ("tie_word_embeddings", True),
)

# Checkpoints of models that see images too hold the language model under other names.
_BESIDE_IMAGES = replace(
    _POST_NORMS,
    others=(
        ("language_model.model.", "model."),
        ("language_model.lm_head.", "lm_head."),
        ("model.language_model.", "model."),
    ),
    unserved=(
        *("vision_tower.", "multi_modal_projector."),
        *("model.vision_tower.", "model.multi_modal_projector."),
    ),
)

FAMILIES: dict[str, Family] = {
    "LlamaForCausalLM": Family(
        qkv_bias="attention_bias",
        output_bias="attention_bias",
        mlp_bias="mlp_bias",
        defaults=(("max_position_embeddings", 2048),),
    ),
    "MistralForCausalLM": Family(
        windows=_one_window,
        defaults=(("max_position_embeddings", 131072), ("num_key_value_heads", 8)),
    ),
    "MixtralForCausalLM": Family(
        names=Names(
            router="block_sparse_moe.gate",
            expert_up=("block_sparse_moe.experts.{}.w1", "block_sparse_moe.experts.{}.w3"),
            expert_down="block_sparse_moe.experts.{}.w2",
        ),
        experts=ExpertKeys(
            counts=("num_local_experts",), inner="intermediate_size", normalised=True
        ),
        windows=_named_window,
        defaults=(
            ("max_position_embeddings", 131072),
            ("num_key_value_heads", 8),
            ("num_local_experts", 8),
            ("num_experts_per_tok", 2),
            ("rms_norm_eps", 1e-5),
        ),
    ),
    "Qwen2ForCausalLM": Family(
        qkv_bias=True,
        windows=_switched_window,
        defaults=(("max_position_embeddings", 32768),),
    ),
    "Qwen3ForCausalLM": Family(
        qkv_bias="attention_bias",
        output_bias="attention_bias",
        qk_norm="head",
        windows=_switched_window,
        defaults=(("max_position_embeddings", 32768), ("head_dim", 128)),
    ),
    "Qwen2MoeForCausalLM": Family(
        qkv_bias="qkv_bias",
        experts=ExpertKeys(shared="shared_expert_intermediate_size"),
        windows=_switched_window,
        defaults=(
            ("max_position_embeddings", 32768),
            ("qkv_bias", True),
            ("num_experts", 60),
            ("num_experts_per_tok", 4),
            ("moe_intermediate_size", 1408),
            ("shared_expert_intermediate_size", 5632),
        ),
    ),
    "Qwen3MoeForCausalLM": Family(
        qkv_bias="attention_bias",
        output_bias="attention_bias",
        experts=ExpertKeys(),
        qk_norm="head",
        windows=_switched_window,
        defaults=(
            ("max_position_embeddings", 32768),
            ("num_experts", 128),
            ("num_experts_per_tok", 8),
            ("moe_intermediate_size", 768),
        ),
    ),
    "OlmoeForCausalLM": Family(
        qkv_bias="attention_bias",
        output_bias="attention_bias",
        experts=ExpertKeys(inner="intermediate_size"),
        qk_norm="joint",
        defaults=(
            ("max_position_embeddings", 4096),
            ("rms_norm_eps", 1e-5),
            ("num_experts", 64),
            ("num_experts_per_tok", 8),
        ),
        only=(("clip_qkv", None),),
    ),
    "GptOssForCausalLM": Family(
        names=Names(
            sinks="self_attn.sinks",
            router="mlp.router",
            expert_up=("mlp.experts.gate_up_proj",) * 2,
            expert_down="mlp.experts.down_proj",
        ),
        qkv_bias="attention_bias",
        output_bias="attention_bias",
        experts=ExpertKeys(
            counts=("num_local_experts",),
            inner="intermediate_size",
            normalised=True,
            stacked=True,
            bias=True,
            act="clamped_swiglu",
        ),
        windows=_gpt_oss_windows,
        ropes=_gpt_oss_rope,
        defaults=(
            ("attention_bias", True),
            ("head_dim", 64),
            ("max_position_embeddings", 131072),
            ("num_attention_heads", 64),
            ("num_key_value_heads", 8),
            ("num_local_experts", 128),
            ("num_experts_per_tok", 4),
            ("rms_norm_eps", 1e-5),
            ("rope_theta", 150000.0),
        ),
        only=(("swiglu_limit", 7.0), ("swiglu_alpha", 1.702)),
    ),
    "Gemma2ForCausalLM": replace(
        _GEMMA,
        windows=_alternating(2),
        soft_caps=(50.0, 30.0),
        defaults=(*_GEMMA_DEFAULTS, ("max_position_embeddings", 8192)),
    ),
    "Gemma3ForCausalLM": replace(
        _GEMMA,
        names=_BESIDE_IMAGES,
        qk_norm="head",
        windows=_alternating(6),
        ropes=global_and_local_ropes,
        soft_caps=(None, None),
        defaults=(
            *_GEMMA_DEFAULTS,
            ("max_position_embeddings", 131072),
            ("num_attention_heads", 8),
            ("num_key_value_heads", 4),
            ("vocab_size", 262208),
        ),
    ),
    "Phi3ForCausalLM": Family(
        names=Names(qkv=("self_attn.qkv_proj",) * 3, up=("mlp.gate_up_proj",) * 2),
        windows=_named_window,
        ropes=_partial_rope,
        defaults=(("max_position_embeddings", 4096), ("rms_norm_eps", 1e-5)),
    ),
    "StableLmForCausalLM": Family(
        norm="layer",
        qkv_bias="use_qkv_bias",
        ropes=_partial_rope,
        keys=(("rms_norm_eps", "layer_norm_eps"),),
        defaults=(
            ("rms_norm_eps", 1e-5),
            ("partial_rotary_factor", 0.25),
            ("max_position_embeddings", 4096),
        ),
        only=(("qk_layernorm", False), ("use_parallel_residual", False)),
    ),
    "Olmo2ForCausalLM": Family(
        names=Names(
            input_norm=None,
            attention_norm="post_attention_layernorm",
            mlp_norm=None,
            output_norm="post_feedforward_layernorm",
        ),
        block="sandwich",
        qkv_bias="attention_bias",
        output_bias="attention_bias",
        qk_norm="joint",
        defaults=(("max_position_embeddings", 2048), ("rms_norm_eps", 1e-5)),
    ),
    "GPTNeoXForCausalLM": Family(
        names=Names(
            embedding="gpt_neox.embed_in",
            norm="gpt_neox.final_layer_norm",
            head="embed_out",
            block="gpt_neox.layers.{}.",
            qkv=("attention.query_key_value",) * 3,
            output="attention.dense",
            up=("mlp.dense_h_to_4h",),
            down="mlp.dense_4h_to_h",
        ),
        block="parallel",
        norm="layer",
        qkv_bias="attention_bias",
        output_bias="attention_bias",
        mlp_bias=True,
        grouped_qkv=True,
        ropes=_partial_rope,
        keys=(
            ("rms_norm_eps", "layer_norm_eps"),
            ("rope_theta", "rotary_emb_base"),
            ("partial_rotary_factor", "rotary_pct"),
        ),
        defaults=(
            ("hidden_act", "gelu"),
            ("rms_norm_eps", 1e-5),
            ("partial_rotary_factor", 0.25),
            ("attention_bias", True),
            ("use_parallel_residual", True),
            ("max_position_embeddings", 2048),
        ),
        refine=_gpt_neox,
    ),
    "FalconForCausalLM": Family(
        names=Names(
            embedding="transformer.word_embeddings",
            norm="transformer.ln_f",
            block="transformer.h.{}.",
            qkv=("self_attention.query_key_value",) * 3,
            output="self_attention.dense",
            up=("mlp.dense_h_to_4h",),
            down="mlp.dense_4h_to_h",
        ),
        norm="layer",
        qkv_bias="bias",
        output_bias="bias",
        mlp_bias="bias",
        widening=4,
        keys=(
            ("rms_norm_eps", "layer_norm_epsilon"),
            ("hidden_act", "activation"),
            ("intermediate_size", "ffn_hidden_size"),
            ("num_key_value_heads", "num_kv_heads"),
        ),
        defaults=(
            ("hidden_act", "gelu"),
            ("rms_norm_eps", 1e-5),
            ("max_position_embeddings", 2048),
            ("multi_query", True),
            ("parallel_attn", True),
            ("new_decoder_architecture", False),
            ("tie_word_embeddings", True),
        ),
        only=(("alibi", False),),
        refine=_falcon,
    ),
    "GPT2LMHeadModel": Family(
        names=Names(
            embedding="transformer.wte",
            positions="transformer.wpe",
            norm="transformer.ln_f",
            block="transformer.h.{}.",
            input_norm="ln_1",
            mlp_norm="ln_2",
            qkv=("attn.c_attn",) * 3,
            output="attn.c_proj",
            up=("mlp.c_fc",),
            down="mlp.c_proj",
            others=tuple((part, f"transformer.{part}") for part in ("wte.", "wpe.", "h.", "ln_f.")),
        ),
        norm="layer",
        qkv_bias=True,
        output_bias=True,
        mlp_bias=True,
        transposed=True,
        ropes=_no_rope,
        widening=4,
        keys=(
            ("hidden_size", "n_embd"),
            ("num_hidden_layers", "n_layer"),
            ("num_attention_heads", "n_head"),
            ("max_position_embeddings", "n_positions"),
            ("intermediate_size", "n_inner"),
            ("hidden_act", "activation_function"),
            ("rms_norm_eps", "layer_norm_epsilon"),
        ),
        defaults=(
            ("hidden_act", "gelu_new"),
            ("rms_norm_eps", 1e-5),
            ("max_position_embeddings", 1024),
            ("tie_word_embeddings", True),
        ),
        only=(
            ("scale_attn_weights", True),
            ("scale_attn_by_inverse_layer_idx", False),
            ("add_cross_attention", False),
        ),
    ),
}

# Models that see images too: their text_config is that of a family.
TEXT_PARTS = {"Gemma3ForConditionalGeneration": "Gemma3ForCausalLM"}

# What old or hand-made files call a family: `model_type`, in lower case.
MODEL_TYPES = {
    "llama": "LlamaForCausalLM",
    "yi": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen2_moe": "Qwen2MoeForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "olmoe": "OlmoeForCausalLM",
    "gpt_oss": "GptOssForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "stablelm": "StableLmForCausalLM",
    "olmo2": "Olmo2ForCausalLM",
    "gpt_neox": "GPTNeoXForCausalLM",
    "falcon": "FalconForCausalLM",
    "refinedwebmodel": "FalconForCausalLM",
    "refinedweb": "FalconForCausalLM",
    "gpt2": "GPT2LMHeadModel",
}
