"""Loading: each rank's slices make up the whole, and a damaged folder is refused in a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from penstock_shard.model.architecture import Architecture, read_architecture
from penstock_shard.model.decoder import Decoder
from penstock_shard.ranks.parallel import Group, Partition
from penstock_shard.weights.checkpoint import Checkpoint, DummyWeights, Weights
from penstock_shard.weights.checkpoint_files import checkpoint_files
from penstock_shard.weights.load_weights import load_decoder

CPU = torch.device("cpu")
FILE = "model.safetensors"


def load_rank(folder: Path, rank: int, world: int, weights: Weights | None = None) -> Decoder:
    source = weights or Checkpoint(folder)
    model = read_architecture(folder)
    return load_decoder(model, Group(rank, world), source, torch.float32, CPU)


def rejoined(parts: list[Tensor], dim: int, whole: int) -> Tensor:
    """Side by side, without the padding at the end."""
    return torch.cat(parts, dim).narrow(dim, 0, whole)


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("family", ["llama2", "llama_bias", "qwen2", "qwen3"])
def test_slices_of_the_ranks_make_up_the_whole(
    checkpoint: Callable[[str], Path], family: str, world: int
) -> None:
    folder = checkpoint(family)
    model, saved = read_architecture(folder), load_file(folder / FILE)
    ranks = [load_rank(folder, rank, world) for rank in range(world)]
    embedding = saved["model.embed_tokens.weight"]
    found = [decoder.embedding.table for decoder in ranks]
    assert torch.equal(rejoined(found, 0, model.vocab_size), embedding)
    assert not torch.cat(found)[model.vocab_size :].any()  # padding
    head = embedding if model.tied_embeddings else saved["lm_head.weight"]
    assert torch.equal(
        rejoined([decoder.head.weight.data for decoder in ranks], 0, model.vocab_size), head
    )
    for index in range(model.num_layers):
        prefix = f"model.layers.{index}"
        blocks = [decoder.blocks[index] for decoder in ranks]
        down = saved[f"{prefix}.mlp.down_proj.weight"]
        parts = [block.mlp.down.weight.data for block in blocks]
        assert torch.equal(torch.cat(parts, 1), down)
        output = saved[f"{prefix}.self_attn.o_proj.weight"]
        parts = [block.attention.output.weight.data for block in blocks]
        assert torch.equal(torch.cat(parts, 1), output)
        for part, name in enumerate(("gate_proj", "up_proj")):
            pieces = [block.mlp.up.data.chunk(2)[part] for block in blocks]
            assert torch.equal(torch.cat(pieces), saved[f"{prefix}.mlp.{name}.weight"])
        for rank, block in enumerate(blocks):
            partition = Partition.of(model, Group(rank, world))
            attention, name = block.attention, f"{prefix}.self_attn"
            check_qkv(model, partition, attention.qkv.data, saved, name, "weight")
            if attention.qkv.bias is not None:
                check_qkv(model, partition, attention.qkv.bias, saved, name, "bias")
            bias = block.mlp.down.weight.bias
            if model.mlp_bias and rank == 0:  # the products of all ranks are summed
                assert torch.equal(bias, saved[f"{prefix}.mlp.down_proj.bias"])
            else:
                assert bias is None
            if attention.norm is not None:
                assert torch.equal(attention.norm.query.weight, saved[f"{name}.q_norm.weight"])
                assert torch.equal(attention.norm.key.weight, saved[f"{name}.k_norm.weight"])


def apart(model: Architecture, joined: Tensor) -> list[Tensor]:
    """Queries, keys and values as transformers' modules take them apart, each [heads, width, k]."""
    heads, kv_heads, width = model.num_heads, model.num_kv_heads, model.head_dim
    if not model.family.grouped_qkv:
        return list(joined.view(-1, width, joined.shape[1]).split((heads, kv_heads, kv_heads)))
    share = heads // kv_heads
    grouped = joined.view(kv_heads, share + 2, width, joined.shape[1])
    return [grouped[:, :share].flatten(0, 1), grouped[:, share], grouped[:, share + 1]]


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize(
    "family", ["phi3", "phi3_long", "gpt_neox", "falcon", "falcon_heads", "falcon_new", "gpt2"]
)
def test_slices_of_joined_projections_make_up_the_whole(
    checkpoint: Callable[[str], Path], family: str, world: int
) -> None:
    folder = checkpoint(family)
    model, saved = read_architecture(folder), load_file(folder / FILE)
    names, prefix = model.family.names, model.family.names.block.format(1)

    def matrix(name: str) -> Tensor:
        tensor = saved[f"{prefix}{name}.weight"]
        return tensor.t() if model.family.transposed else tensor

    blocks = [load_rank(folder, rank, world).blocks[1] for rank in range(world)]
    for rank, block in enumerate(blocks):
        part = Partition.of(model, Group(rank, world))
        expected = [
            heads[mine.start : mine.stop].flatten(0, 1)
            for heads, mine in zip(
                apart(model, matrix(names.qkv[0])),
                (part.heads, part.kv_heads, part.kv_heads),
                strict=True,
            )
        ]
        assert torch.equal(block.attention.qkv.data, torch.cat(expected))
        up = matrix(names.up[0]).view(len(names.up), model.intermediate_size, -1)
        mine = up[:, part.mlp.start : part.mlp.stop].flatten(0, 1)
        assert torch.equal(block.mlp.up.data, mine)
    down = torch.cat([block.mlp.down.weight.data for block in blocks], 1)
    assert torch.equal(down, matrix(names.down))
    output = torch.cat([block.attention.output.weight.data for block in blocks], 1)
    assert torch.equal(output, matrix(names.output))


def check_qkv(
    model: Architecture,
    partition: Partition,
    fused: Tensor,
    saved: dict[str, Tensor],
    prefix: str,
    kind: str,
) -> None:
    width = model.head_dim
    heads = [partition.heads, partition.kv_heads, partition.kv_heads]
    expected = [
        saved[f"{prefix}.{name}_proj.{kind}"][part.start * width : part.stop * width]
        for name, part in zip("qkv", heads, strict=True)
    ]
    assert torch.equal(fused, torch.cat(expected))


def test_heads_meet_their_kv_heads() -> None:
    """Ranks beyond the number of KV heads share one: each query head must find its own."""

    class Sizes:
        name, num_heads, intermediate_size, vocab_size = "X", 8, 16, 33
        num_kv_heads = 2
        experts = None

    for world in (1, 2, 4, 8):
        for rank in range(world):
            partition = Partition.of(Sizes, Group(rank, world))  # type: ignore[arg-type]
            for local, head in enumerate(partition.heads):
                share = len(partition.heads) // len(partition.kv_heads)
                assert partition.kv_heads[local // share] == head // 4


@pytest.mark.parametrize(
    ("overrides", "world", "message"),
    [
        ({}, 3, "num_attention_heads 4 cannot be split evenly over 3 shards"),
        ({"intermediate_size": 98}, 4, "intermediate_size 98 cannot be split evenly over 4 shards"),
        (
            {"num_attention_heads": 6, "num_key_value_heads": 3, "hidden_size": 96},
            2,
            "num_key_value_heads 3 cannot be split over 2 shards: one number must divide the other",
        ),
    ],
)
def test_a_model_that_cannot_be_split(
    own_checkpoint: Callable[..., Path], overrides: dict[str, Any], world: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load_rank(own_checkpoint("llama2", **overrides), 0, world)


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    tensors = load_file(folder / FILE)
    change(tensors)
    save_file(tensors, folder / FILE, metadata={"format": "pt"})


def refused(folder: Path, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_rank(folder, 0, 1)


KEY = "model.layers.1.self_attn.k_proj.weight"


def test_missing_tensors_are_named(own_checkpoint: Callable[..., Path]) -> None:
    """All of them, before any memory is taken, not one at a time."""
    folder = own_checkpoint()
    rewrite(folder, lambda tensors: tensors.__delitem__(KEY))
    refused(folder, f"the checkpoint does not fit config.json: tensor {KEY} is missing$")
    rewrite(folder, lambda tensors: tensors.__delitem__("model.norm.weight"))
    refused(folder, f"tensor {KEY} is missing; tensor model.norm.weight is missing$")


def test_nothing_is_allocated_for_a_checkpoint_that_does_not_fit(
    own_checkpoint: Callable[..., Path],
) -> None:
    """The layer would take 8 TB."""
    folder = own_checkpoint()
    config = json.loads((folder / "config.json").read_text())
    wide = {"hidden_size": 2**17, "intermediate_size": 2**20, "head_dim": 16}
    (folder / "config.json").write_text(json.dumps(config | wide))
    refused(folder, "tensor model.embed_tokens.weight has shape")


def test_more_than_all_memory_is_refused(own_checkpoint: Callable[..., Path]) -> None:
    """Random weights have no files to be held against."""
    folder = own_checkpoint()
    config = json.loads((folder / "config.json").read_text())
    wide = {"hidden_size": 2**17, "intermediate_size": 2**20, "head_dim": 16}
    (folder / "config.json").write_text(json.dumps(config | wide))
    with pytest.raises(ValueError, match=r"this shard's weights take 49\d\d.\d GB, but cpu has"):
        load_rank(folder, 0, 1, DummyWeights())


def test_a_wrong_shape_is_named(own_checkpoint: Callable[..., Path]) -> None:
    folder = own_checkpoint()
    rewrite(folder, lambda tensors: tensors.update({KEY: torch.zeros(3, 64)}))
    refused(folder, rf"tensor {KEY} has shape \[3, 64\], but config.json makes it \[64, 64\]")


def test_a_type_that_is_no_weight_is_named(own_checkpoint: Callable[..., Path]) -> None:
    folder = own_checkpoint()
    rewrite(folder, lambda tensors: tensors.update({KEY: torch.zeros(64, 64).char()}))
    refused(folder, f"tensor {KEY} has type I8; supported: F32, F16, BF16")


def test_tensors_that_nobody_reads_are_refused(own_checkpoint: Callable[..., Path]) -> None:
    """A bias that config.json does not announce would silently change the answers."""
    folder = own_checkpoint()
    name = "model.layers.0.self_attn.q_proj.bias"
    rewrite(folder, lambda tensors: tensors.update({name: torch.zeros(64)}))
    refused(folder, f"has 1 tensors that config.json does not account for: {name}")
    derived = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(8)}
    fine = own_checkpoint()
    rewrite(fine, lambda tensors: tensors.update(derived))
    load_rank(fine, 0, 1)


def test_a_tied_head_may_be_stored(own_checkpoint: Callable[..., Path]) -> None:
    folder = own_checkpoint("qwen3")
    rewrite(folder, lambda tensors: tensors.update({"lm_head.weight": torch.zeros(301, 64)}))
    decoder = load_rank(folder, 0, 1)
    assert decoder.head.weight.data is decoder.embedding.table


@pytest.mark.parametrize("left", [0, 6, 100, 5000])
def test_a_truncated_file_is_named(own_checkpoint: Callable[..., Path], left: int) -> None:
    folder = own_checkpoint()
    (folder / FILE).write_bytes((folder / FILE).read_bytes()[:left])
    refused(folder, f"{FILE} is damaged or no safetensors file")


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_pickled_weights_are_refused_unopened(own_checkpoint: Callable[..., Path]) -> None:
    folder = own_checkpoint()
    (folder / FILE).unlink()
    sentinel = folder / "executed"
    torch.save(Trap(sentinel), folder / "pytorch_model.bin")
    refused(folder, r"only pickled weights \(.bin\).*convert them with transformers")
    assert not sentinel.exists()
    with pytest.raises(Exception):  # noqa: B017 (whatever: the trap itself must work)
        torch.load(folder / "pytorch_model.bin", weights_only=False)["x"]
    assert sentinel.exists()


def test_an_empty_folder(own_checkpoint: Callable[..., Path]) -> None:
    folder = own_checkpoint()
    (folder / FILE).unlink()
    refused(folder, "has no \\*.safetensors file")


def split(folder: Path) -> dict[str, str]:
    """The checkpoint in two files with an index. Returns the weight map."""
    tensors = load_file(folder / FILE)
    (folder / FILE).unlink()
    names = sorted(tensors)
    where = {name: f"part-{index % 2}.safetensors" for index, name in enumerate(names)}
    for file in set(where.values()):
        save_file({n: tensors[n] for n in names if where[n] == file}, folder / file)
    write_index(folder, where)
    return where


def write_index(folder: Path, where: Any) -> None:
    (folder / f"{FILE}.index.json").write_text(json.dumps({"weight_map": where}))


def test_several_files(own_checkpoint: Callable[..., Path]) -> None:
    whole, folder = own_checkpoint(), own_checkpoint()
    where = split(folder)
    assert torch.equal(
        load_rank(folder, 0, 1).blocks[2].attention.qkv.data,
        load_rank(whole, 0, 1).blocks[2].attention.qkv.data,
    )
    (folder / "part-1.safetensors").rename(folder / "elsewhere")
    refused(folder, "tensor .* is missing")
    write_index(folder, where | {KEY: "../../etc/passwd"})
    refused(folder, "names '../../etc/passwd', which is not in its folder")
    write_index(folder, ["part-0.safetensors"])
    refused(folder, "is no index of safetensors files")


def test_a_tensor_in_two_files(own_checkpoint: Callable[..., Path]) -> None:
    folder = own_checkpoint()
    (folder / FILE).rename(folder / "model-1.safetensors")
    save_file({KEY: torch.zeros(64, 64)}, folder / "more.safetensors")
    refused(folder, f"tensor {KEY} stands twice in")


def test_which_files_are_the_checkpoint(tmp_path: Path) -> None:
    """n4: what lies beside the weights is named and left alone, as transformers leaves it."""

    def choose(*names: str, index: Any = None) -> tuple[list[str], tuple[str, ...]]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        for name in names:
            (folder / name).touch()
        if index is not None:
            write_index(folder, {str(n): name for n, name in enumerate(index)})
        files = checkpoint_files(folder)
        return [path.name for path in files.chosen], files.notices

    two = ["model-1.safetensors", "model-2.safetensors"]
    copy, adapter = "consolidated.safetensors", "adapter_model.safetensors"
    assert choose(FILE) == ([FILE], ())
    assert choose(*two) == (two, ())
    assert choose(copy) == ([copy], ())
    assert choose(FILE, copy, adapter) == (
        [FILE],
        (f"not served, as {FILE} holds the weights: {adapter}, {copy}",),
    )
    assert choose(*two, copy) == (two, (f"not served, as 2 others hold the weights: {copy}",))
    # transformers takes the one file first, whatever an index says
    assert choose(FILE, index=two) == ([FILE], ())
    assert choose(*two, "x.safetensors", index=two)[0] == two
    chosen, notices = choose(*two, adapter, index=[two[0], "model-3.safetensors"])
    assert chosen == two
    assert notices[0] == f"{FILE}.index.json is stale: it names model-3.safetensors, not here"
    with pytest.raises(ValueError, match="holds an adapter .* and no model"):
        choose(adapter)


def test_the_dtype_of_a_checkpoint_is_that_of_most(own_checkpoint: Callable[..., Path]) -> None:
    folder = own_checkpoint()

    def halve(tensors: dict[str, Tensor]) -> None:
        for name in tensors:
            if "norm" not in name:
                tensors[name] = tensors[name].bfloat16()

    assert Checkpoint(folder).dtype == "float32"
    rewrite(folder, halve)
    assert Checkpoint(folder).dtype == "bfloat16"
    assert load_rank(folder, 0, 1).blocks[0].attention.qkv.data.dtype == torch.float32  # converted


def test_dummy_weights(checkpoint: Callable[[str], Path]) -> None:
    """The same in every run; what is replicated is the same on every rank; slices differ."""
    folder = checkpoint("llama_bias")  # one KV head, which two ranks share
    first, again = (load_rank(folder, 0, 1, DummyWeights()) for _ in range(2))
    assert torch.equal(first.blocks[1].attention.qkv.data, again.blocks[1].attention.qkv.data)
    assert not torch.equal(first.blocks[1].attention.qkv.data, first.blocks[2].attention.qkv.data)
    assert (first.norm.weight == 1).all()
    assert first.embedding.table.std() == pytest.approx(0.02, rel=0.1)
    zero, one = (load_rank(folder, rank, 2, DummyWeights()) for rank in range(2))
    width = zero.specs()[0].width
    values = [decoder.blocks[0].attention.qkv.data[-width:] for decoder in (zero, one)]
    assert torch.equal(*values)
    down = [decoder.blocks[0].mlp.down.weight.data for decoder in (zero, one)]
    assert not torch.equal(*down)


def test_weight_bytes(checkpoint: Callable[[str], Path]) -> None:
    """All of the file's, once; tied embeddings are no second copy."""
    for family in ("llama2", "qwen2", "llama_bias"):
        folder = checkpoint(family)
        tensors = load_file(folder / FILE).values()
        assert load_rank(folder, 0, 1).nbytes == sum(tensor.nbytes for tensor in tensors)
