"""Checkpoints of 4-bit codes mean what their tables say: formats x families x ranks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from penstock_kernels.lut import TABLES, nearest, pack, unpack
from penstock_kernels.weight import Layout
from penstock_quantization.matrix import MatrixSpec, Slice
from penstock_quantization.methods import parse_scheme
from penstock_quantization.reader import reader_for
from penstock_quantization.squeezellm import stream
from penstock_shard.check import check
from penstock_shard.model.architecture import read_architecture
from penstock_shard.ranks.parallel import Group
from penstock_shard.weights.checkpoint import Checkpoint
from penstock_shard.weights.load_weights import load_decoder
from support.checkpoints import make_checkpoint
from support.joined_ranks import joined_ranks
from support.local_shard import LocalShard, load_model
from support.lut_checkpoints import FORMATS, codes_of, quantise_checkpoint

FAMILIES = (
    "llama2", "llama3", "llama_bias", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3",
    "gpt_neox", "falcon", "falcon_new",
)  # fmt: skip
FEW = ("phi3",)
PROMPT = list(range(3, 30))
CPU = torch.device("cpu")
LIBRARIES = Path(__file__).parent / "quantised"


def tokens(shard: LocalShard) -> list[int]:
    return [shard.start(0, PROMPT), *shard.decode([0], 12)[0]]


def numbers(folder: Path, rank: int, ranks: int) -> list[Tensor]:
    """What a rank holds."""
    model = read_architecture(folder)
    group = Group(rank, ranks)
    return list(load_decoder(model, group, Checkpoint(folder), torch.float32, CPU).tensors())


@pytest.mark.parametrize(
    "family",
    [f if f in FEW else pytest.param(f, marks=pytest.mark.full) for f in FAMILIES],
)
def test_every_format_means_its_numbers(tmp_path: Path, family: str) -> None:
    """Bit for bit those of a dense checkpoint, as one rank and as two."""
    dense = make_checkpoint(tmp_path / "dense", family)
    for name in FORMATS:
        folder, twin = tmp_path / name, tmp_path / f"{name}-twin"
        shutil.copytree(dense, folder)
        quantise_checkpoint(folder, name, twin)
        check(folder, "auto", 2)
        for rank, ranks in ((0, 1), (0, 2), (1, 2)):
            pairs = zip(numbers(folder, rank, ranks), numbers(twin, rank, ranks), strict=True)
            assert all(torch.equal(ours, theirs) for ours, theirs in pairs), (name, rank, ranks)


@pytest.mark.parametrize("name", ["nf4-nested", "squeezellm-3"])
def test_tokens_are_those_of_the_numbers(tmp_path: Path, name: str) -> None:
    folder, twin = make_checkpoint(tmp_path / "model", "llama3"), tmp_path / "twin"
    quantise_checkpoint(folder, name, twin)
    expected = tokens(LocalShard(load_model(twin)))
    assert tokens(LocalShard(load_model(folder))) == expected
    assert joined_ranks(folder, 2, tokens) == expected


@pytest.mark.parametrize(("family", "code"), [("phi3", "fp4"), ("gpt2", "nf4")])
def test_weights_are_quantised_online(tmp_path: Path, family: str, code: str) -> None:
    """Two ranks hold the same numbers as one, and those are near the checkpoint's."""
    folder = make_checkpoint(tmp_path / "model", family)
    quantize = f"bitsandbytes-{code}"
    loaded, dense = load_model(folder, quantize=quantize), load_model(folder)
    for ours, theirs in zip(loaded.decoder.blocks, dense.decoder.blocks, strict=True):
        for matrix in ("up", "down"):
            found, meant = (getattr(block.mlp, matrix) for block in (ours, theirs))
            found, meant = (getattr(one, "weight", one).data for one in (found, meant))
            assert not torch.equal(found, meant)
            assert float((found - meant).norm() / meant.norm()) < 0.16
    expected = tokens(LocalShard(loaded))
    assert joined_ranks(folder, 2, tokens, quantize=quantize) == expected


def test_what_is_made_at_load_is_what_a_checkpoint_holds(tmp_path: Path) -> None:
    """Rows of whole blocks: the same numbers as those that bitsandbytes' format gives."""
    folder = make_checkpoint(tmp_path / "model", "llama2", intermediate_size=128)
    made = load_model(folder, quantize="bitsandbytes-nf4").decoder.blocks[0].mlp.up.data
    quantise_checkpoint(folder, "nf4", tmp_path / "twin")
    assert torch.equal(load_model(folder).decoder.blocks[0].mlp.up.data, made)


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "mxfp8"])
def test_layouts_on_a_device_are_cut_as_they_are_on_a_cpu(tmp_path: Path, name: str) -> None:
    """What a GPU holds, of both ranks, against the whole."""
    folder = make_checkpoint(tmp_path / "model", "llama2")
    quantise_checkpoint(folder, name, tmp_path / "twin")
    scheme = parse_scheme(json.loads((folder / "config.json").read_text()))
    source, twin = Checkpoint(folder), load_file(tmp_path / "twin" / "model.safetensors")
    reader = reader_for(scheme, source, torch.float32, CPU)
    layer = "model.layers.0.mlp."
    for matrix in ("gate_proj", "down_proj"):
        whole = twin[f"{layer}{matrix}.weight"]
        n, k = whole.shape
        half = n // 2 if matrix == "gate_proj" else k // 2
        for start in (0, half):
            cut = range(start, start + half)
            rows, columns = (cut, range(k)) if matrix == "gate_proj" else (range(n), cut)
            spec = MatrixSpec((Slice(layer + matrix, rows, n),), columns, k, False, False)
            weight = reader.read(spec)
            assert weight.layout is Layout.LUT
            assert (weight.n, weight.k) == (len(rows), len(columns))
            expected = whole[rows.start : rows.stop, columns.start : columns.stop]
            assert torch.equal(weight.dequantised(), expected)


@pytest.mark.parametrize("k", [64, 192, 24])
def test_codes_are_packed_and_back(k: int) -> None:
    codes = torch.randint(0, 16, (5, k)).to(torch.uint8)
    assert pack(codes).shape == (5, k // 2)
    assert torch.equal(unpack(pack(codes)), codes)


@pytest.mark.parametrize("code", list(TABLES))
def test_the_nearest_number_is_chosen(code: str) -> None:
    x = torch.linspace(-1.1, 1.1, 9973) * max(TABLES[code])
    table = torch.tensor(TABLES[code])
    assert torch.equal(table[nearest(x, code).long()], table[codes_of(x, code).long()])


def test_a_stream_of_three_bits() -> None:
    """Numbers that go over the end of a word, by arithmetic of Python's own."""
    numbers = [(7 * i + i // 5) % 8 for i in range(32)]
    line = sum(number << 3 * place for place, number in enumerate(numbers))
    words = [(line >> 32 * word) & 0xFFFFFFFF for word in range(3)]
    signed = torch.tensor([[word - (1 << 32) if word >> 31 else word] for word in words]).int()
    assert stream(signed, 3)[:, 0].tolist() == numbers


def spoil(folder: Path, change: Any) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})


DOWN = "model.layers.1.mlp.down_proj"
STATE = f"{DOWN}.weight.quant_state.bitsandbytes__nf4"


def of_json(**changes: Any) -> Any:
    def change(tensors: dict[str, Tensor]) -> None:
        state = json.loads(bytes(tensors[STATE].tolist())) | changes
        tensors[STATE] = torch.tensor(list(json.dumps(state).encode())).byte()

    return change


BROKEN: list[tuple[str, Any, str]] = [
    ("nf4", lambda t: t.pop(f"{DOWN}.weight.quant_map"), "down_proj.weight.quant_map is missing"),
    ("nf4", lambda t: t.pop(STATE), "quant_state.bitsandbytes__nf4 is missing"),
    ("nf4", of_json(blocksize=63), "blocksize 63 is no power of two"),
    ("nf4", of_json(shape=[64, 64]), r"shape is \[64, 64\], not \[64, 96\]"),
    ("nf4", of_json(quant_type="fp4"), "quant_type is 'fp4', not nf4"),
    ("nf4", lambda t: t[f"{DOWN}.weight.quant_map"].zero_(), "quant_map is not the table of nf4"),
    ("nf4", lambda t: t.update({STATE: torch.zeros(9).byte()}), "bitsandbytes__nf4 is no JSON"),
    ("nf4-nested", of_json(nested_offset="x"), "nested_offset 'x' is no number"),
    ("nvfp4", lambda t: t.pop(f"{DOWN}.weight_global_scale"), "weight_global_scale is missing"),
    ("mxfp4", lambda t: t.update({f"{DOWN}.weight_scale": torch.ones(2)}), "has shape"),
    ("squeezellm-4", lambda t: t.update({f"{DOWN}.vals": torch.ones(2)}), "has a sparse part"),
]


@pytest.mark.parametrize(("name", "change", "message"), BROKEN)
def test_what_is_broken_is_named(tmp_path: Path, name: str, change: Any, message: str) -> None:
    folder = make_checkpoint(tmp_path / "model", "llama2")
    quantise_checkpoint(folder, name, tmp_path / "twin")
    spoil(folder, change)
    with pytest.raises(ValueError, match=message):
        load_model(folder)


@pytest.mark.parametrize("name", ["nf4", "nf4-nested", "nvfp4", "mxfp4", "mxfp8", "squeezellm-4"])
def test_random_weights(tmp_path: Path, name: str) -> None:
    folder = make_checkpoint(tmp_path / "model", "llama2")
    quantise_checkpoint(folder, name, tmp_path / "twin")
    data = load_model(folder, load_format="dummy").decoder.blocks[0].mlp.up.data
    assert 0.002 < float(data.std()) < 0.08


def _ct(name: str, **weights: Any) -> dict[str, Any]:
    groups = {"group_0": {"weights": weights}}
    return {"quant_method": "compressed-tensors", "format": name, "config_groups": groups}


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf5"},
     "bnb_4bit_quant_type 'nf5' is not supported; supported: fp4, nf4"),
    ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_storage": "bfloat16"},
     "bnb_4bit_quant_storage"),
    ({"quant_method": "squeezellm", "wbits": 2}, "wbits 2 is not supported; supported: 4, 3"),
    ({"quant_method": "modelopt", "quant_algo": "W4A8_AWQ"}, "quant_algo 'W4A8_AWQ'"),
    (_ct("nvfp4-pack-quantized", type="float", num_bits=4, strategy="group", group_size=32),
     "group_size 32 is not supported; supported: 16"),
    (_ct("mxfp4-pack-quantized", type="int", num_bits=4, strategy="group"), "type 'int'"),
]  # fmt: skip


@pytest.mark.parametrize(("config", "message"), REFUSED)
def test_what_no_reader_takes_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_scheme({"quantization_config": config})


@pytest.mark.parametrize("path", sorted(LIBRARIES.glob("*.safetensors")), ids=lambda p: p.stem)
def test_numbers_are_those_of_the_library_that_wrote_them(path: Path) -> None:
    """bitsandbytes' and compressed-tensors' own files (`support.quantised_fixtures`)."""
    from safetensors import safe_open

    class Source(Checkpoint):
        def __init__(self) -> None:
            self._slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            self._left: dict[str, int] = {}

    with safe_open(path, "pt") as file:
        expected = file.get_tensor("expected")
        config = {"quantization_config": json.loads(file.metadata()["quantization_config"])}
        n, k = expected.shape
        spec = MatrixSpec((Slice("matrix", range(n), n),), range(k), k, False, False)
        weight = reader_for(parse_scheme(config), Source(), torch.float32, CPU).read(spec)
    # The scale of a whole tensor divides there; here its inverse multiplies, rounded once more.
    exact = weight.outer is None
    torch.testing.assert_close(weight.dequantised(), expected, rtol=0 if exact else 2**-22, atol=0)


def test_what_modelopt_writes_beside_config_json(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "model", "llama2")
    quantise_checkpoint(folder, "modelopt", tmp_path / "twin")
    config = json.loads((folder / "config.json").read_text())
    given = config.pop("quantization_config")
    (folder / "config.json").write_text(json.dumps(config))
    quantization = {"quant_algo": "NVFP4", "group_size": 16, "exclude_modules": given["ignore"]}
    beside = {"producer": {"name": "modelopt"}, "quantization": quantization}
    (folder / "hf_quant_config.json").write_text(json.dumps(beside))
    pairs = zip(numbers(folder, 0, 1), numbers(tmp_path / "twin", 0, 1), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)
