"""Files that call a family's tensors, or the family, by other names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from penstock_shard.model.architecture import read_architecture
from support.checkpoints import make_checkpoint
from support.local_shard import LocalShard, load_model

PROMPT = list(range(3, 24))


def tokens(folder: Path) -> list[int]:
    shard = LocalShard(load_model(folder))
    return [shard.start(0, PROMPT), *shard.decode([0], 8)[0]]


def rename(folder: Path, old: str, new: str, **added: torch.Tensor) -> None:
    """Tensors whose names begin with `old` begin with `new`; others are added."""
    path = folder / "model.safetensors"
    tensors = {
        new + name.removeprefix(old) if name.startswith(old) else name: tensor
        for name, tensor in load_file(path).items()
    }
    save_file({**tensors, **added}, path, {"format": "pt"})


def test_gpt2_without_a_prefix(tmp_path: Path) -> None:
    """As the first checkpoints have it, with the masks that they hold."""
    folder = make_checkpoint(tmp_path / "model", "gpt2")
    expected = tokens(folder)
    rename(folder, "transformer.", "", **{"h.0.attn.bias": torch.ones(1, 1, 4, 4)})
    assert "h.0.ln_1.weight" in load_file(folder / "model.safetensors")
    assert tokens(folder) == expected


@pytest.mark.parametrize(
    ("text", "vision"),
    [("language_model.model.", "vision_tower."), ("model.language_model.", "model.vision_tower.")],
)
def test_the_language_model_of_one_that_sees(tmp_path: Path, text: str, vision: str) -> None:
    """Older files and newer ones; the rest of the model is not loaded."""
    folder = make_checkpoint(tmp_path / "model", "gemma3")
    expected = tokens(folder)
    rename(folder, "model.", text, **{f"{vision}patch.weight": torch.zeros(2, 2)})
    path = folder / "config.json"
    config = json.loads(path.read_text())
    outer = {
        "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3",
        "text_config": config | {"architectures": None}, "vision_config": {"hidden_size": 8},
        "torch_dtype": config.pop("dtype", None),
    }  # fmt: skip
    path.write_text(json.dumps(outer))
    assert read_architecture(folder).name == "Gemma3ForCausalLM"
    assert tokens(folder) == expected


def test_what_a_published_text_config_leaves_out(tmp_path: Path) -> None:
    """That of gemma-3-4b-it: transformers' defaults stand for the rest."""
    text = {
        "hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text",
        "num_hidden_layers": 34, "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    }  # fmt: skip
    config = {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": text}
    (tmp_path / "config.json").write_text(json.dumps(config | {"torch_dtype": "bfloat16"}))
    model = read_architecture(tmp_path)
    assert (model.num_heads, model.num_kv_heads, model.head_dim) == (8, 4, 256)
    assert (model.vocab_size, model.dtype, model.tied_embeddings) == (262208, "bfloat16", True)
    assert model.windows[:6] == (1024,) * 5 + (None,) and len(model.windows) == 34
    assert len(model.ropes) == 2


def test_architectures_in_lower_case(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "model", "llama2")
    path = folder / "config.json"
    config = json.loads(path.read_text()) | {"architectures": ["llamaforcausallm"]}
    path.write_text(json.dumps(config))
    assert read_architecture(folder).name == "LlamaForCausalLM"
