"""What a row of the table of families says: how its models differ from Llama's, and what they call
their tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from penstock_shard.model.families.layer_kinds import (
    Config,
    Windows,
    all_rotate,
    no_window,
    one_rope,
)
from penstock_shard.model.families.multipliers import Multipliers, neutral
from penstock_shard.model.rope_config import Rope

# What OpenAI's GPT-2 calls keys of config.json, and others after it: (the usual name, its own).
GPT_KEYS = (
    ("hidden_size", "n_embd"),
    ("num_hidden_layers", "n_layer"),
    ("num_attention_heads", "n_head"),
    ("max_position_embeddings", "n_positions"),
    ("intermediate_size", "n_inner"),
    ("hidden_act", "activation_function"),
    ("rms_norm_eps", "layer_norm_epsilon"),
)
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


def as_it_is(family: Family, config: Config) -> Family:
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
    norm_bias: bool = True  # of layer norms
    qkv_bias: bool | str = False
    output_bias: bool | str = False
    mlp_bias: bool | str = False
    head_bias: bool = False
    experts: ExpertKeys | None = None  # in layers that have them, instead of the MLP
    qk_norm: QKNormKind = None
    kv_heads: int | None = None  # whatever config.json says
    grouped_qkv: bool = False  # one tensor: of each KV head its queries, its key, its value
    transposed: bool = False  # matrices of a block are stored [inputs, outputs]
    windows: Callable[[Config, int], Windows] = no_window
    # One table for all layers, none, or a second one for those that slide.
    ropes: Callable[[Config, int], tuple[Rope, ...]] = one_rope
    rotates: Callable[[Config, Windows], tuple[bool, ...]] = all_rotate  # by layer
    interleaved: bool = False  # neighbours are rotated against each other, not halves of a head
    first_position: int = 0  # of a table of learned ones: what stands before it is for no token
    query_scalar: bool = False  # query_pre_attn_scalar stands for the heads' width in the scale
    soft_caps: tuple[float | None, float | None] | None = None  # without keys: attention's, logits'
    scaled_embedding: bool = False  # by the root of hidden_size
    multipliers: Callable[[Config], Multipliers] = neutral
    widening: int | None = None  # intermediate_size in hidden_sizes, if config.json does not say
    # Keys of config.json that have names of their own here: (the usual one, its own).
    keys: tuple[tuple[str, str], ...] = ()
    defaults: tuple[tuple[str, Any], ...] = ()  # values that config.json may leave out
    only: tuple[tuple[str, Any], ...] = ()  # the values of keys that are supported
    model_types: tuple[str, ...] = ()  # what old or hand-made files call it, in lower case
    refine: Callable[[Family, Config], Family] = as_it_is  # a row that config.json decides on

    def default_intermediate(self, hidden: int) -> int | None:
        """intermediate_size, where config.json may leave it out."""
        return None if self.widening is None else self.widening * hidden
