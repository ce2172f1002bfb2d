"""`penstock merge`: what comes out computes what the model and its adapter compute together."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from penstock_shard.weights.merge import main
from support.checkpoints import make_checkpoint
from support.local_shard import load_model

Q, DOWN = "model.layers.1.self_attn.q_proj", "model.layers.2.mlp.down_proj"
CONFIG = {"peft_type": "LORA", "r": 4, "lora_alpha": 12, "lora_bias": False, "use_dora": False}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("merge") / "llama", "llama3")


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))) * 0.2


def pair(module: str, outputs: int, inputs: int, rank: int = 4) -> dict[str, Tensor]:
    return {
        f"base_model.model.{module}.lora_A.weight": drawn(rank, inputs),
        f"base_model.model.{module}.lora_B.weight": drawn(outputs, rank),
    }


def adapter(folder: Path, tensors: dict[str, Tensor], **config: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG | config))
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def merged(model: Path, beside: Path, output: Path) -> dict[str, Tensor]:
    asked = ["--model-id", str(model), "--adapter", str(beside), "--output", str(output)]
    assert main(asked) == 0
    return load_file(output / "model.safetensors")


def refused(model: Path, beside: Path, output: Path, capsys: Any) -> str:
    asked = ["--model-id", str(model), "--adapter", str(beside), "--output", str(output)]
    assert main(asked) == 1 and not output.exists()
    return str(capsys.readouterr().err)


def side_by_side(matrix: Tensor, tensors: dict[str, Tensor], module: str, scale: float) -> Tensor:
    """Outputs for some inputs, as PEFT computes them while it trains."""
    a, b = (tensors[f"base_model.model.{module}.lora_{part}.weight"] for part in "AB")
    x = drawn(7, matrix.shape[1])
    return x @ matrix.T + scale * (x @ a.T) @ b.T


@pytest.mark.parametrize(
    ("config", "scales"),
    [
        ({}, (3.0, 6.0)),
        ({"use_rslora": True}, (6.0, 12 / math.sqrt(2))),
        ({"alpha_pattern": {"mlp.down_proj": 1, f"^{Q}": 8}}, (2.0, 0.5)),
        ({"alpha_pattern": {"own_proj": 1, "^layers.1.self_attn.q_proj": 8}}, (3.0, 6.0)),
    ],
    ids=["plain", "rslora", "patterns", "patterns-of-others"],
)
def test_it_computes_what_both_compute(
    llama: Path, tmp_path: Path, config: dict[str, Any], scales: tuple[float, float]
) -> None:
    """Ranks differ from module to module; what has no adapter stays as it is, bit for bit."""
    tensors = pair(Q, 64, 64) | pair(DOWN, 64, 96, rank=2)
    before = load_file(llama / "model.safetensors")
    after = merged(llama, adapter(tmp_path / "a", tensors, **config), tmp_path / "out")
    for module, scale in zip((Q, DOWN), scales, strict=True):
        name = f"{module}.weight"
        expected = side_by_side(before[name], tensors, module, scale)
        found = drawn(7, before[name].shape[1]) @ after.pop(name).T
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(before[name], after[name]) for name in after)


def test_rows_have_the_lengths_that_dora_gives(llama: Path, tmp_path: Path) -> None:
    lengths = drawn(64).abs() + 0.5
    tensors = pair(Q, 64, 64) | {f"base_model.model.{Q}.lora_magnitude_vector": lengths}
    after = merged(llama, adapter(tmp_path / "a", tensors, use_dora=True), tmp_path / "out")
    plain = merged(llama, adapter(tmp_path / "b", pair(Q, 64, 64)), tmp_path / "plain")
    found, same = (one[f"{Q}.weight"] for one in (after, plain))
    torch.testing.assert_close(found.norm(dim=1), lengths)
    torch.testing.assert_close(found / lengths[:, None], same / same.norm(dim=1, keepdim=True))


def test_what_stands_in_the_place_of_tensors(llama: Path, tmp_path: Path) -> None:
    """Modules that were trained whole, an embedding, and the texts of a training."""
    before = load_file(llama / "model.safetensors")
    rows, width = before["model.embed_tokens.weight"].shape
    norm = drawn(width)
    tensors = {
        "base_model.model.model.norm.modules_to_save.weight": norm,
        "base_model.model.model.embed_tokens.lora_embedding_A": drawn(4, rows),
        "base_model.model.model.embed_tokens.lora_embedding_B": drawn(width, 4),
    }
    beside = adapter(tmp_path / "a", tensors)
    (beside / "chat_template.jinja").write_text("{{ messages[0].content }}")
    after = merged(llama, beside, tmp_path / "out")
    assert torch.equal(after["model.norm.weight"], norm)
    added = after["model.embed_tokens.weight"] - before["model.embed_tokens.weight"]
    expected = 3.0 * (drawn(width, 4) @ drawn(4, rows)).T
    torch.testing.assert_close(added, expected, rtol=1e-3, atol=1e-4)
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == "{{ messages[0].content }}"
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (
        llama / "tokenizer.json"
    ).read_bytes()


def test_matrices_that_are_stored_turned(tmp_path: Path) -> None:
    """GPT-2's, whose files also leave out the beginning of names. What comes out is served."""
    folder = make_checkpoint(tmp_path / "gpt2", "gpt2")
    before = load_file(folder / "model.safetensors")
    [name] = [name for name in before if name.endswith("h.1.mlp.c_fc.weight")]
    module = "transformer." + name.removeprefix("transformer.").removesuffix(".weight")
    inputs, outputs = before[name].shape
    tensors = pair(module, outputs, inputs)
    beside = adapter(tmp_path / "a", tensors, fan_in_fan_out=True)
    after = merged(folder, beside, tmp_path / "out")
    expected = side_by_side(before[name].T, tensors, module, 3.0)
    torch.testing.assert_close(drawn(7, inputs) @ after[name], expected, rtol=1e-4, atol=1e-4)
    load_model(tmp_path / "out")


@pytest.mark.parametrize(
    ("tensors", "config", "said"),
    [
        (pair(Q, 64, 64), {"peft_type": "IA3"}, "peft_type 'IA3' cannot be merged"),
        (pair(Q, 64, 64), {"lora_bias": True}, "lora_bias True"),
        (pair(Q, 64, 64), {"init_lora_weights": "pissa_niter_16"}, "another base"),
        (pair(Q, 64, 64), {"lora_alpha": "x"}, "lora_alpha of model.layers.1"),
        (pair(Q, 64, 64), {"alpha_pattern": {"(a+)+$": 1}}, "alpha_pattern '(a+)+$'"),
        (pair(Q, 64, 32), {}, "belongs to another model"),
        (pair("model.layers.9.mlp.up_proj", 96, 64), {}, "does not hold"),
        (dict(list(pair(Q, 64, 64).items())[:1]), {}, "one of the two matrices"),
        ({f"base_model.model.{Q}.lora_E": drawn(4, 1)}, {}, "lora_E is of a kind"),
        ({"x.trainable_tokens_delta": drawn(4, 1)}, {}, "is of a kind"),
        ({}, {}, "holds no tensors"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_merged(
    llama: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    tensors: dict[str, Tensor],
    config: dict[str, Any],
    said: str,
) -> None:
    beside = adapter(tmp_path / "a", tensors, **config)
    assert said in refused(llama, beside, tmp_path / "out", capsys)


def test_folders_that_are_something_else(
    llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    beside = adapter(tmp_path / "a", pair(Q, 64, 64))
    out = tmp_path / "out"
    assert "no folder with a config.json" in refused(tmp_path, beside, out, capsys)
    assert "holds no adapter_config.json" in refused(llama, llama, out, capsys)
    (beside / "adapter_model.safetensors").write_bytes(b"no safetensors")
    assert "cannot be read" in refused(llama, beside, out, capsys)
    (beside / "adapter_model.safetensors").unlink()
    (beside / "adapter_model.bin").touch()
    assert "pickled weights" in refused(llama, beside, out, capsys)
    full = ["--model-id", str(llama), "--adapter", str(beside), "--output", str(tmp_path)]
    assert main(full) == 1 and "is not empty" in capsys.readouterr().err
