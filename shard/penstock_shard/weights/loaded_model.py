"""A loaded model: what a shard has before anyone said how large its steps will be."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from penstock_proto import shard_pb2
from penstock_quantization.activations import check_activations
from penstock_quantization.kv_scheme import NAMES
from penstock_quantization.methods import check_quantize, dummy_scheme
from penstock_shard import log
from penstock_shard.config import ShardConfig
from penstock_shard.device import choose_device, device_name, served_dtype
from penstock_shard.grammars.templates import Templates
from penstock_shard.memory.kv_cache import Shares, bytes_per_token, cache_dtype
from penstock_shard.model.architecture import Architecture, read_architecture
from penstock_shard.model.decoder import Decoder
from penstock_shard.ranks.parallel import Group, join_group
from penstock_shard.weights.checkpoint import Checkpoint, DummyWeights, Weights
from penstock_shard.weights.fp8_rows import check_device
from penstock_shard.weights.load_weights import load_decoder

FP8 = "float8_e4m3fn"


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """This rank's share of the model and where it runs."""

    model: Architecture
    decoder: Decoder
    group: Group
    device: torch.device
    dtype: torch.dtype
    block_size: int
    shares: Shares
    dependent_launch: bool  # kernels start while those before them end, where the device can
    cuda_graphs: tuple[int, ...] | None  # rows captured; (0,): none; None: sizes up to all slots
    grammars: Templates
    weights: str  # their format
    deterministic: bool = False  # no row's result depends on what else is computed
    activations: str = ""  # in what rows meet 4-bit weights, by torch's name; "": as they are

    @property
    def cache_dtype(self) -> str:
        """The type of the KV cache."""
        return str(cache_dtype(self.decoder)).removeprefix("torch.")

    def info(self) -> shard_pb2.InfoResponse:
        """What the router asks first."""
        return shard_pb2.InfoResponse(
            rank=self.group.rank,
            world_size=self.group.world_size,
            device=self.device.type,
            device_name=device_name(self.device),
            dtype=str(self.dtype).removeprefix("torch."),
            architecture=self.model.name,
            vocab_size=self.model.vocab_size,
            max_position_embeddings=self.model.max_positions,
            block_size=self.block_size,
            kv_bytes_per_token=bytes_per_token(self.decoder),
            kv_cache_dtype=self.cache_dtype,
            weight_bytes=self.decoder.nbytes,
            weights=self.weights,
            deterministic=self.deterministic,
            quantized_activations=self.activations,
        )


def load(config: ShardConfig) -> LoadedModel:
    """Load this rank's share. Raises ValueError with a sentence for what cannot be served."""
    folder = Path(config.model_path)
    model = read_architecture(folder)
    dummy = config.load_format == "dummy"
    if dummy and model.scheme is None:
        model = replace(model, scheme=dummy_scheme(config.quantize))
    check_quantize(config.quantize, model.scheme)
    check_activations(config.quantize_activations, config.quantize, model.scheme)
    checkpoint = None if dummy else Checkpoint(folder, model.family.names)
    weights: Weights = checkpoint or DummyWeights()
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    device = choose_device(config.device, rank, world_size, "MASTER_ADDR" not in os.environ)
    name = config.dtype or model.dtype or (checkpoint and checkpoint.dtype) or "float32"
    name = served_dtype(name, device)
    dtype: torch.dtype = getattr(torch, name)
    fp8_rows = config.quantize_activations is not None
    if fp8_rows:
        check_device(device, dtype)
    dependent = not config.disable_dependent_launch
    group = join_group(os.environ, Path(config.socket_folder), device)
    if config.deterministic:
        group = group.in_order()
    group = group.with_rows(device, model.hidden_size, dtype, dependent)
    cache = NAMES.get(config.kv_cache_dtype, model.kv_cache)
    decoder = load_decoder(model, group, weights, dtype, device, config.quantize, cache, fp8_rows)
    loaded = LoadedModel(
        model=model,
        decoder=decoder,
        group=group,
        device=device,
        dtype=dtype,
        block_size=config.kv_block_size or (64 if device.type == "cuda" else 16),
        shares=Shares(config.cuda_memory_fraction, config.kv_cache_memory, config.leave_free),
        dependent_launch=dependent,
        cuda_graphs=config.cuda_graphs,
        grammars=Templates(model.vocab_size),
        weights=_format(config, model, checkpoint) or name,
        deterministic=config.deterministic,
        activations=FP8 if fp8_rows else "",
    )
    log.info(
        f"loaded {model.name} in {name} on {device}: {decoder.nbytes} bytes",
        weights="dummy" if dummy else str(folder),
    )
    return loaded


def _format(config: ShardConfig, model: Architecture, checkpoint: Checkpoint | None) -> str | None:
    """Of the weights, as operators call it; None for half precision, also where config.json says
    otherwise: somebody has unpacked the tensors and left it as it was."""
    if model.scheme is None:
        return config.quantize
    if checkpoint is None or checkpoint.is_quantised:
        return config.quantize or model.scheme.format
    log.warning(
        f"config.json says quant_method {model.scheme.method!r} in its quantization_config, but no "
        "tensor of the checkpoint is quantised: they are served as they are; take it out"
    )
    return None
