"""Checkpoints in whole numbers mean what their scales say: formats x families x ranks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from penstock_kernels.weight import Layout
from penstock_quantization.matrix import MatrixSpec, Slice
from penstock_quantization.methods import parse_scheme
from penstock_quantization.reader import reader_for
from penstock_shard.check import check
from penstock_shard.model.architecture import read_architecture
from penstock_shard.ranks.parallel import Group
from penstock_shard.weights.checkpoint import Checkpoint, DummyWeights
from penstock_shard.weights.load_weights import load_decoder
from support.checkpoints import make_checkpoint
from support.integer_checkpoints import FORMATS, quantise_checkpoint
from support.joined_ranks import joined_ranks
from support.local_shard import LocalShard, load_model

FAMILIES = (
    "llama2", "llama3", "llama_bias", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3",
    "gpt_neox", "falcon", "falcon_new", "mixtral", "qwen2_moe",
)  # fmt: skip
SAMPLE = (("llama3", tuple(FORMATS)), ("phi3", ("gptq-act-order", "awq")), ("gpt2", ("gptq",)))
PROMPT = list(range(3, 30))
CPU = torch.device("cpu")
LAYER = "model.layers.0.mlp."


def tokens(shard: LocalShard) -> list[int]:
    return [shard.start(0, PROMPT), *shard.decode([0], 12)[0]]


def numbers(folder: Path, rank: int, ranks: int) -> list[Tensor]:
    """What a rank holds."""
    model = read_architecture(folder)
    source, group = Checkpoint(folder, model.family.names), Group(rank, ranks)
    return list(load_decoder(model, group, source, torch.float32, CPU).tensors())


def hold(tmp_path: Path, family: str, formats: tuple[str, ...]) -> None:
    """Bit for bit the numbers of a dense checkpoint, as one rank and as two."""
    dense = make_checkpoint(tmp_path / "dense", family, num_hidden_layers=1)
    for name in formats:
        folder, twin = tmp_path / name, tmp_path / f"{name}-twin"
        shutil.copytree(dense, folder)
        quantise_checkpoint(folder, name, twin)
        check(folder, "auto", 2)
        for rank, ranks in ((0, 1), (0, 2), (1, 2)):
            pairs = zip(numbers(folder, rank, ranks), numbers(twin, rank, ranks), strict=True)
            assert all(torch.equal(ours, theirs) for ours, theirs in pairs), (name, rank, ranks)


@pytest.mark.parametrize(("family", "formats"), SAMPLE)
def test_formats_mean_their_numbers(tmp_path: Path, family: str, formats: tuple[str, ...]) -> None:
    hold(tmp_path, family, formats)


@pytest.mark.full
@pytest.mark.parametrize("family", FAMILIES)
def test_every_format_means_its_numbers_in_every_family(tmp_path: Path, family: str) -> None:
    hold(tmp_path, family, tuple(FORMATS))


@pytest.mark.parametrize("name", ["gptq-act-order", "packed-8-bits-groups"])
def test_tokens_are_those_of_the_numbers(tmp_path: Path, name: str) -> None:
    folder, twin = make_checkpoint(tmp_path / "model", "llama3"), tmp_path / "twin"
    quantise_checkpoint(folder, name, twin)
    expected = tokens(LocalShard(load_model(twin)))
    assert tokens(LocalShard(load_model(folder))) == expected
    assert joined_ranks(folder, 2, tokens) == expected


@pytest.mark.parametrize("quantize", ["eetq", "bitsandbytes"])
@pytest.mark.parametrize("family", ["gemma2", "gpt2"])
def test_weights_are_quantised_online(tmp_path: Path, family: str, quantize: str) -> None:
    """Two ranks hold the same numbers as one, and those are near the checkpoint's."""
    folder = make_checkpoint(tmp_path / "model", family)
    loaded, dense = load_model(folder, quantize=quantize), load_model(folder)
    for ours, theirs in zip(loaded.decoder.blocks, dense.decoder.blocks, strict=True):
        for matrix in ("up", "down"):
            found, meant = (getattr(block.mlp, matrix) for block in (ours, theirs))
            found, meant = (getattr(one, "weight", one).data for one in (found, meant))
            step = meant.abs().amax(1, keepdim=True) / 127
            assert 0 < float(((found - meant).abs() / step).max()) < 0.51
    expected = tokens(LocalShard(loaded))
    assert joined_ranks(folder, 2, tokens, quantize=quantize) == expected


@pytest.mark.parametrize("name", ["gptq", "awq", "packed-act-order", "gptq-8-bits", "torchao"])
def test_layouts_on_a_device_are_cut_as_they_are_on_a_cpu(tmp_path: Path, name: str) -> None:
    """What a GPU holds, of both ranks, against the whole."""
    folder = make_checkpoint(tmp_path / "model", "llama2")
    quantise_checkpoint(folder, name, tmp_path / "twin")
    reader = reader_of(folder)
    twin = load_file(tmp_path / "twin" / "model.safetensors")
    for matrix in ("gate_proj", "down_proj"):
        whole = twin[f"{LAYER}{matrix}.weight"]
        n, k = whole.shape
        half = n // 2 if matrix == "gate_proj" else k // 2
        for start in (0, half):
            cut = range(start, start + half)
            rows, columns = (cut, range(k)) if matrix == "gate_proj" else (range(n), cut)
            spec = MatrixSpec((Slice(LAYER + matrix, rows, n),), columns, k, False, False)
            weight = reader.read(spec)
            assert weight.layout is (Layout.INT8 if FORMATS[name].bits == 8 else Layout.INT4)
            assert (weight.n, weight.k) == (len(rows), len(columns))
            expected = whole[rows.start : rows.stop, columns.start : columns.stop]
            assert torch.equal(weight.dequantised(), expected)


def reader_of(folder: Path) -> Any:
    scheme = parse_scheme(json.loads((folder / "config.json").read_text()))
    return reader_for(scheme, Checkpoint(folder), torch.float32, CPU)


def test_a_cut_through_groups_is_refused(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "model", "llama2")
    quantise_checkpoint(folder, "gptq", tmp_path / "twin")
    name = f"{LAYER}down_proj"
    n, k = load_file(tmp_path / "twin" / "model.safetensors")[f"{name}.weight"].shape
    spec = MatrixSpec((Slice(name, range(n), n),), range(24), k, False, False)
    with pytest.raises(ValueError, match=rf"{name} .* groups of 16, .* parts of 24"):
        reader_of(folder).read(spec)


def test_a_missing_scale_is_named(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "model", "llama2")
    quantise_checkpoint(folder, "gptq", tmp_path / "twin")
    path = folder / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.layers.1.mlp.down_proj.scales"]
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(ValueError, match=r"model.layers.1.mlp.down_proj.scales is missing"):
        load_model(folder)


def test_groups_that_are_not_there_are_refused(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "model", "llama2")
    quantise_checkpoint(folder, "gptq-act-order", tmp_path / "twin")
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.1.mlp.down_proj.g_idx"][3] = 99
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(ValueError, match=r"layers.1.mlp.down_proj.g_idx names groups beyond"):
        load_model(folder)


@pytest.mark.parametrize("quantize", ["gptq", "awq", "eetq", "torchao"])
def test_random_weights_in_a_format(tmp_path: Path, quantize: str) -> None:
    """Without a checkpoint: as large, and about as it is."""
    folder = make_checkpoint(tmp_path / "model", "llama2", hidden_size=128, intermediate_size=256)
    loaded = load_model(folder, load_format="dummy", quantize=quantize)
    assert 0.01 < float(loaded.decoder.blocks[0].mlp.up.data.std()) < 0.04
    if quantize != "eetq":
        reader = reader_for(loaded.model.scheme, DummyWeights(), torch.float16, CPU)
        spec = MatrixSpec((Slice("a", range(128), 128),), range(256), 256, False, False)
        layout = Layout.INT8 if quantize == "torchao" else Layout.INT4
        assert reader.read(spec).layout is layout


@pytest.mark.parametrize("name", ["quantize_config.json", "quant_config.json"])
def test_old_folders_say_it_in_a_file_beside(tmp_path: Path, name: str) -> None:
    form = "gptq" if name == "quantize_config.json" else "awq"
    folder = make_checkpoint(tmp_path / "model", "llama2")
    quantise_checkpoint(folder, form, tmp_path / "twin")
    config = json.loads((folder / "config.json").read_text())
    own = config.pop("quantization_config")
    del own["quant_method"]
    if form == "awq":
        own = {"w_bit": 4, "q_group_size": own["group_size"], "zero_point": True}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / name).write_text(json.dumps(own))
    pairs = zip(numbers(folder, 0, 1), numbers(tmp_path / "twin", 0, 1), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)


def test_biases_that_a_model_has_not_are_not_read(tmp_path: Path) -> None:
    """Some writers put one beside every matrix."""
    folder = make_checkpoint(tmp_path / "model", "llama2")
    quantise_checkpoint(folder, "gptq", tmp_path / "twin")
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.0.mlp.down_proj.bias"] = torch.zeros(64)
    save_file(tensors, path, {"format": "pt"})
    load_model(folder)


GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128}
W4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128}
CT = {"quant_method": "compressed-tensors", "format": "pack-quantized"}
REFUSED: list[tuple[dict[str, Any], str]] = [
    (GPTQ | {"bits": 5}, "'gptq': bits 5 is not supported; supported: 4, 2, 3, 8"),
    (GPTQ | {"group_size": 100}, "group_size 100 is not supported"),
    (GPTQ | {"checkpoint_format": "marlin"}, "repacked for Marlin are not read"),
    (GPTQ | {"is_marlin_format": True}, "repacked for Marlin are not read"),
    (GPTQ | {"checkpoint_format": "bitblas"}, "checkpoint_format 'bitblas' is not supported"),
    ({"quant_method": "marlin", "bits": 4}, "'marlin': .* repacked for Marlin"),
    ({"quant_method": "exl2"}, "ExLlamaV2 are not read"),
    ({"quant_method": "eetq"}, "EETQ .* are not read.* --quantize eetq"),
    ({"quant_method": "awq", "bits": 4, "version": "gemv"}, "version 'gemv' is not supported"),
    ({"quant_method": "awq", "bits": 4, "version": "GEMV_fast"}, "version 'gemv_fast'"),
    ({"quant_method": "awq", "bits": 4, "version": "llm-awq"}, "version 'llm-awq'"),
    ({"quant_method": "awq", "bits": 8}, "bits 8 is not supported"),
    ({"quant_method": "torchao", "quant_type": "int4_weight_only"}, "quant_type 'int4_weight"),
    ({"quant_method": "bitsandbytes"}, "neither load_in_4bit nor load_in_8bit"),
    (CT | {"config_groups": {"a": {"weights": W4 | {"num_bits": 5}}}}, "num_bits 5"),
    (CT | {"config_groups": {"a": {"weights": W4 | {"type": "float"}}}}, "type 'float'"),
    (CT | {"config_groups": {"a": {"weights": W4}, "b": {"weights": W4 | {"num_bits": 8}}}},
     "config_groups that differ"),
]  # fmt: skip


@pytest.mark.parametrize(("config", "message"), REFUSED)
def test_what_is_not_read_is_refused_in_a_sentence(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_scheme({"quantization_config": config})
