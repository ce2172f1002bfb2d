"""A family's switches are told apart by its checkpoint: with one that is wrong, tokens differ.

So `test_families.py` would see each of these mistakes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from penstock_shard.model.families import FAMILIES, multipliers, parallel
from penstock_shard.model.families.family import as_it_is
from penstock_shard.model.families.layer_kinds import all_rotate, no_rope, no_window, one_rope
from support.checkpoints import make_checkpoint
from support.local_shard import LocalShard, load_model

pytestmark = pytest.mark.full
PROMPT = list(range(3, 30))
GEMMA2, GEMMA3 = "Gemma2ForCausalLM", "Gemma3ForCausalLM"
NEOX, FALCON, PHI3 = "GPTNeoXForCausalLM", "FalconForCausalLM", "Phi3ForCausalLM"


def _granite_but(**wrong: Any) -> Callable[[Any], multipliers.Multipliers]:
    return lambda config: replace(multipliers.granite(config), **wrong)


WRONG: list[tuple[str, str, dict[str, Any]]] = [
    ("llama2", "LlamaForCausalLM", {"norm": "rms_one"}),
    ("llama_bias", "LlamaForCausalLM", {"qkv_bias": False}),
    ("llama_bias", "LlamaForCausalLM", {"output_bias": False}),
    ("llama_bias", "LlamaForCausalLM", {"mlp_bias": False}),
    ("mistral", "MistralForCausalLM", {"windows": no_window}),
    ("qwen2", "Qwen2ForCausalLM", {"qkv_bias": False}),
    ("qwen2_window", "Qwen2ForCausalLM", {"windows": no_window}),
    ("qwen3", "Qwen3ForCausalLM", {"qk_norm": None}),
    ("gemma2", GEMMA2, {"norm": "rms"}),
    ("gemma2", GEMMA2, {"block": "sequential"}),
    ("gemma2", GEMMA2, {"windows": no_window}),
    ("gemma2", GEMMA2, {"query_scalar": False}),
    ("gemma2", GEMMA2, {"scaled_embedding": False}),
    ("gemma2", GEMMA2, {"soft_caps": None}),
    ("gemma3", GEMMA3, {"norm": "rms"}),
    ("gemma3", GEMMA3, {"qk_norm": None}),
    ("gemma3", GEMMA3, {"windows": no_window}),
    ("gemma3", GEMMA3, {"ropes": no_rope}),
    ("phi3", PHI3, {"windows": no_window}),
    ("phi3", PHI3, {"norm": "rms_one"}),
    ("olmo2", "Olmo2ForCausalLM", {"qk_norm": None}),
    ("olmo2", "Olmo2ForCausalLM", {"block": "sequential"}),
    ("gpt_neox", NEOX, {"grouped_qkv": False}),
    ("gpt_neox", NEOX, {"norm": "rms"}),
    ("gpt_neox", NEOX, {"refine": lambda family, config: replace(family, block="sequential")}),
    ("gpt_neox_sequential", NEOX, {"refine": as_it_is}),
    ("falcon", FALCON, {"norm": "rms"}),
    ("falcon_heads", FALCON, {
        "refine": lambda family, config: replace(
            parallel._falcon(family, config), grouped_qkv=False
        )
    }),
    ("falcon_sequential", FALCON, {
        "refine": lambda family, config: replace(parallel._falcon(family, config), block="parallel")
    }),
    ("gpt2", "GPT2LMHeadModel", {"ropes": one_rope}),
    ("gpt2", "GPT2LMHeadModel", {"qkv_bias": False}),
    ("gpt2", "GPT2LMHeadModel", {"norm": "rms"}),
    ("smollm3", "SmolLM3ForCausalLM", {"rotates": all_rotate}),
    ("granite", "GraniteForCausalLM", {"multipliers": multipliers.neutral}),
    *(
        ("granite", "GraniteForCausalLM", {"multipliers": _granite_but(**wrong)})
        for wrong in ({"embedding": 1.0}, {"residual": 1.0}, {"scores": None})
    ),
    ("glm", "GlmForCausalLM", {"interleaved": False}),
    ("glm4", "Glm4ForCausalLM", {"block": "sequential"}),
    ("olmo3", "Olmo3ForCausalLM", {"windows": no_window}),
    ("olmo3", "Olmo3ForCausalLM", {"ropes": one_rope}),
    ("exaone4", "Exaone4ForCausalLM", {"rotates": all_rotate}),
    ("cohere", "CohereForCausalLM", {"interleaved": False}),
    ("cohere2", "Cohere2ForCausalLM", {"rotates": all_rotate}),
    ("cohere2", "Cohere2ForCausalLM", {"windows": no_window}),
    ("phi", "PhiForCausalLM", {"head_bias": False}),
    ("gptj", "GPTJForCausalLM", {"ropes": one_rope}),
    ("opt", "OPTForCausalLM", {"qkv_bias": False}),
]  # fmt: skip


def tokens(folder: Path) -> list[int]:
    shard = LocalShard(load_model(folder))
    return [shard.start(0, PROMPT), *shard.decode([0], 12)[0]]


@pytest.mark.parametrize(("checkpoint", "family", "wrong"), WRONG)
def test_a_wrong_switch_changes_tokens(
    tmp_path: Path,
    checkpoint: str,
    family: str,
    wrong: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = make_checkpoint(tmp_path / "model", checkpoint)
    expected = tokens(folder)
    monkeypatch.setitem(FAMILIES, family, replace(FAMILIES[family], **wrong))
    try:
        found = tokens(folder)
    except (ValueError, TypeError) as error:  # tensors that nothing asks for, or that are missing
        assert "tensors" in str(error) or "missing" in str(error)
        return
    assert found != expected
