"""What config.json says about a model, as the switches that the decoder has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from penstock_quantization.kv_scheme import declared_kv_cache, quantises_cache_alone
from penstock_quantization.methods import parse_scheme
from penstock_quantization.scheme import Scheme
from penstock_shard.json_file import read_object
from penstock_shard.model.config_numbers import real, shown, whole
from penstock_shard.model.families import FAMILIES
from penstock_shard.model.families.family import Family, QKNormKind
from penstock_shard.model.families.layer_kinds import Config, Windows
from penstock_shard.model.families.which import family_name, text_part
from penstock_shard.model.rope_config import Rope
from penstock_shard.weights.quantization_file import quantization_file


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertShape:
    """MLPs that rows choose among, in some layers."""

    count: int
    top: int  # that a row takes
    inner: int  # size of each
    normalised: bool  # see `experts.Experts`
    shared: int | None  # size of the MLP that every row takes as well
    layers: tuple[bool, ...]  # whether a layer has them, instead of one MLP


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A decoder of attention and MLPs."""

    name: str  # "LlamaForCausalLM"
    family: Family  # what does not follow from numbers: tensor names, order of norms, …
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    norm_eps: float
    act: str  # an `ops.Act`
    scale: float  # of the products of queries and keys
    attention_cap: float | None  # see AttentionSpec.soft_cap
    logit_cap: float | None
    logit_scale: float
    embedding_scale: float
    ropes: tuple[Rope, ...]  # none: positions are learned
    rotates: tuple[bool, ...]  # which layers do
    rotary: int | None  # leading elements of a head that are rotated; None: all
    max_positions: int  # rope scaling included
    tied_embeddings: bool
    qkv_bias: bool
    output_bias: bool
    mlp_bias: bool
    experts: ExpertShape | None
    qk_norm: QKNormKind  # of queries and keys, before the rotation
    windows: Windows  # of each layer: tokens a row sees, itself included; None is all
    scheme: Scheme | None  # how the checkpoint is quantised
    kv_cache: str | None  # type of the KV cache that it was made for; None: its own
    dtype: str | None  # of the checkpoint, where config.json says it

    @property
    def parameters(self) -> int:
        """How many there are, less the few of biases, sinks and norms of heads."""
        names, hidden = self.family.names, self.hidden_size
        attention = 2 * (self.num_heads + self.num_kv_heads) * self.head_dim
        norms = sum(name is not None for name in names.norms)
        layer = hidden * (attention + norms)
        inner = sum(self._inner(index) for index in range(self.num_layers))
        routers = sum(self._router_rows(index) for index in range(self.num_layers))
        rows = self.vocab_size * (1 if self.tied_embeddings else 2)
        if names.positions is not None:
            rows += self.family.first_position + self.max_positions
        return self.num_layers * layer + hidden * ((len(names.up) + 1) * inner + routers + rows + 1)

    def has_experts(self, layer: int) -> bool:
        return self.experts is not None and self.experts.layers[layer]

    def _inner(self, layer: int) -> int:
        """Of the MLPs of a layer together."""
        if self.experts is None or not self.experts.layers[layer]:
            return self.intermediate_size
        return self.experts.count * self.experts.inner + (self.experts.shared or 0)

    def _router_rows(self, layer: int) -> int:
        if self.experts is None or not self.experts.layers[layer]:
            return 0
        return self.experts.count + (self.experts.shared is not None)

    def rope_of(self, layer: int) -> int | None:
        """Which of `ropes` a layer takes: the second of two is that of layers with a window."""
        if not self.ropes or not self.rotates[layer]:
            return None
        return 0 if self.windows[layer] is None else len(self.ropes) - 1


ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "relu2": "relu2",
}
DTYPE_NAMES = ("float32", "float16", "bfloat16")


def read_architecture(folder: Path) -> Architecture:
    """Parse config.json of a model folder. Raises ValueError that says what is wrong."""
    path = folder / "config.json"
    if not path.exists():
        raise ValueError(f"{folder} has no config.json, so it is no model folder")
    config = read_object(path)
    config |= quantization_file(folder, config)
    try:
        return parse_architecture(config)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from None


def parse_architecture(config: Config) -> Architecture:
    """The switches of a parsed config.json. Raises ValueError for what is not supported."""
    config = text_part(config)
    name = family_name(config)
    family = FAMILIES[name]
    renamed = {usual: config[own] for usual, own in family.keys if own in config}
    try:
        return _architecture(name, family, {**config, **renamed})
    except ValueError as error:
        said = str(error)
        for usual, own in family.keys:
            said = said.replace(usual, own)
        raise ValueError(said) from None


def _architecture(name: str, family: Family, config: Config) -> Architecture:
    layers = whole(config, "num_hidden_layers")
    windows = family.windows(config, layers)
    attention_cap, logit_cap = _soft_caps(family, config)
    config = {**dict(family.defaults), **{k: v for k, v in config.items() if v is not None}}
    family = family.refine(family, config)
    _refuse_unsupported(family, config)
    heads = whole(config, "num_attention_heads")
    hidden = whole(config, "hidden_size")
    positions = whole(config, "max_position_embeddings")
    kv_heads = family.kv_heads or whole(config, "num_key_value_heads", heads)
    if heads % kv_heads:
        raise ValueError(
            f"num_attention_heads {heads} is no multiple of num_key_value_heads {kv_heads}"
        )
    width = _head_dim(config, hidden, heads)
    ropes = family.ropes(config, positions)
    rotary = min((rope.rotated(width) for rope in ropes), default=width)
    longest = max([positions, *(int(rope.original_positions * rope.reach) for rope in ropes)])
    scalar = real(config, "query_pre_attn_scalar") if family.query_scalar else width
    by = family.multipliers(config)
    embedding_scale = hidden**0.5 if family.scaled_embedding else by.embedding
    return Architecture(
        name=name,
        family=family,
        vocab_size=whole(config, "vocab_size"),
        hidden_size=hidden,
        intermediate_size=whole(config, "intermediate_size", family.default_intermediate(hidden)),
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=width,
        # Blocks that add a share of what they compute are blocks that add all of it to a residual
        # which is as much larger; norms undo that but for their epsilon.
        norm_eps=real(config, "rms_norm_eps", 1e-6) / by.residual**2,
        act=ACTIVATIONS[config.get("hidden_act", "silu")],
        scale=scalar**-0.5 if by.scores is None else by.scores,
        attention_cap=attention_cap,
        logit_cap=logit_cap,
        logit_scale=by.logits,
        embedding_scale=embedding_scale / by.residual,
        ropes=ropes,
        rotates=family.rotates(config, windows),
        rotary=None if rotary == width else rotary,
        max_positions=whole({"max_position_embeddings": longest}, "max_position_embeddings"),
        tied_embeddings=bool(config.get("tie_word_embeddings", False)),
        qkv_bias=_switch(config, family.qkv_bias),
        output_bias=_switch(config, family.output_bias),
        mlp_bias=_switch(config, family.mlp_bias),
        experts=_experts(family, config, layers),
        qk_norm=family.qk_norm,
        windows=windows,
        scheme=None if quantises_cache_alone(config) else parse_scheme(config),
        kv_cache=declared_kv_cache(config),
        dtype=_dtype(config),
    )


def check_split(model: Architecture, shards: int) -> None:
    """Raises ValueError where a model cannot be split over so many shards."""
    evenly = {"num_attention_heads": model.num_heads, "intermediate_size": model.intermediate_size}
    if (experts := model.experts) is not None:
        keys = model.family.experts
        assert keys is not None
        if all(experts.layers):
            del evenly["intermediate_size"]
        evenly[keys.inner] = experts.inner
        if keys.shared is not None and experts.shared is not None:
            evenly[keys.shared] = experts.shared
    for name, value in evenly.items():
        if value % shards:
            raise ValueError(f"{name} {value} cannot be split evenly over {shards} shards")
    if model.num_kv_heads % shards and shards % model.num_kv_heads:
        raise ValueError(
            f"{model.name} with num_key_value_heads {model.num_kv_heads} cannot be split over "
            f"{shards} shards: one number must divide the other"
        )


def _soft_caps(family: Family, config: Config) -> tuple[float | None, float | None]:
    """Of attention and of logits. A null says that there is none."""
    if family.soft_caps is None:
        return None, None
    keys = ("attn_logit_softcapping", "final_logit_softcapping")
    attention, logits = (
        None if config.get(key, default) is None else real(config, key, default)
        for key, default in zip(keys, family.soft_caps, strict=True)
    )
    return attention, logits


def _experts(family: Family, config: Config, layers: int) -> ExpertShape | None:
    """Qwen's keys of layers that have none stand in no other family's files."""
    keys = family.experts
    if keys is None:
        return None
    name = next((name for name in reversed(keys.counts) if name in config), keys.counts[0])
    count, top = whole(config, name), whole(config, "num_experts_per_tok")
    if top > count:
        raise ValueError(f"num_experts_per_tok {top} is more than {name} {count}")
    every = whole(config, "decoder_sparse_step", 1)
    without = config.get("mlp_only_layers") or []
    if not isinstance(without, list) or not all(type(layer) is int for layer in without):
        raise ValueError("mlp_only_layers must be a list of numbers of layers")
    return ExpertShape(
        count=count,
        top=top,
        inner=whole(config, keys.inner),
        normalised=_switch(config, keys.normalised),
        shared=None if keys.shared is None else whole(config, keys.shared),
        layers=tuple(layer not in without and (layer + 1) % every == 0 for layer in range(layers)),
    )


def _refuse_unsupported(family: Family, config: Config) -> None:
    activation = config.get("hidden_act", "silu")
    if activation not in tuple(ACTIVATIONS):
        raise ValueError(
            f"hidden_act {shown(activation)} is not supported; supported: {', '.join(ACTIVATIONS)}"
        )
    for key, supported in family.only:
        if (value := config.get(key, supported)) != supported:
            raise ValueError(f"{key} {shown(value)} is not supported; supported: {supported!r}")


def _head_dim(config: Config, hidden: int, heads: int) -> int:
    if "head_dim" in config:
        width = whole(config, "head_dim")
    elif hidden % heads:
        raise ValueError(f"hidden_size {hidden} is no multiple of num_attention_heads {heads}")
    else:
        width = hidden // heads
    if width % 2:
        raise ValueError(f"head_dim {width} is odd, so it cannot be rotated")
    return width


def _switch(config: Config, value: bool | str) -> bool:
    return bool(config.get(value, False)) if isinstance(value, str) else value


def _dtype(config: Config) -> str | None:
    """`dtype`, or `torch_dtype` in older files. Raises ValueError for one we cannot compute in."""
    name: str | None = config.get("dtype", config.get("torch_dtype"))
    if name is not None and name not in DTYPE_NAMES:
        raise ValueError(f"dtype {name!r} is not supported; supported: {', '.join(DTYPE_NAMES)}")
    return name
