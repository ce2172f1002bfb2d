"""The model and its training loop."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from .document import BEGIN, END, PAD, SPECIAL_TOKENS
from .encoding import WEIGHT_UNIT, Encoded
from .tokenizer import CONTEXT

PAD_ID, BEGIN_ID, END_ID = (SPECIAL_TOKENS.index(token) for token in (PAD, BEGIN, END))


@dataclass(frozen=True, slots=True)
class Recipe:
    """How long and how fast to learn."""

    steps: int
    batch_tokens: int = 131_072
    peak_rate: float = 2e-3
    warmup_steps: int = 200
    weight_decay: float = 0.05
    seed: int = 0


def build_model(vocabulary: int, hidden: int, layers: int, seed: int) -> LlamaForCausalLM:
    """A Llama with 8 heads and 4 key-value heads, so that 2 and 4 shards divide it evenly."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=hidden * 5 // 2,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT,
        rope_theta=10000.0,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=BEGIN_ID,
        eos_token_id=END_ID,
        pad_token_id=PAD_ID,
        initializer_range=0.04,
    )
    return LlamaForCausalLM(config)


class Batches:
    """Documents on the device, cut into batches of similar length and equal size."""

    def __init__(self, encoded: Encoded, batch_tokens: int, device: torch.device) -> None:
        self._ids = torch.from_numpy(encoded.ids.astype(np.int32)).to(device)
        self._weights = torch.from_numpy(encoded.weights).to(device)
        self._lengths = encoded.lengths.astype(np.int64)
        self._starts = np.cumsum(self._lengths) - self._lengths
        self._batch_tokens = batch_tokens
        self._device = device

    def epoch(self, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches (ids, weights), both [rows, length], in random order."""
        # 10 % of noise mixes lengths, and so kinds of documents, at little padding.
        order = np.argsort(self._lengths * rng.uniform(0.9, 1.1, len(self._lengths)))
        batches = list(self._cut(order))
        for place in rng.permutation(len(batches)):
            yield self._gather(batches[place])

    def _cut(self, order: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        begin = longest = 0
        for end, length in enumerate(self._lengths[order].tolist()):
            longest = max(longest, length)
            if (end + 1 - begin) * longest > self._batch_tokens:
                yield order[begin:end]
                begin, longest = end, length
        yield order[begin:]

    def _gather(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        starts = torch.from_numpy(self._starts[rows]).to(self._device)
        lengths = torch.from_numpy(self._lengths[rows]).to(self._device)
        columns = torch.arange(int(self._lengths[rows].max()), device=self._device)
        inside = columns < lengths[:, None]
        places = torch.where(inside, starts[:, None] + columns, 0)
        ids = torch.where(inside, self._ids[places], PAD_ID)
        return ids.long(), self._weights[places] * inside * WEIGHT_UNIT


def loss_of(model: LlamaForCausalLM, ids: Tensor, weights: Tensor) -> Tensor:
    """Mean cross-entropy of the next token, in nats, by weight; padding is on the right."""
    with torch.autocast(ids.device.type, torch.bfloat16, enabled=ids.is_cuda):
        logits = model(ids[:, :-1], use_cache=False).logits
    targets, weights = ids[:, 1:], weights[:, 1:]
    losses = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")
    return (losses * weights.flatten()).sum() / weights.sum()


def _rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then a cosine down to zero."""
    if step < recipe.warmup_steps:
        return recipe.peak_rate * (step + 1) / recipe.warmup_steps
    done = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    return recipe.peak_rate * 0.5 * (1 + math.cos(math.pi * done))


def _optimizer(model: LlamaForCausalLM, recipe: Recipe, fused: bool) -> torch.optim.AdamW:
    matrices = [p for p in model.parameters() if p.dim() > 1]
    norms = [p for p in model.parameters() if p.dim() == 1]
    groups = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": norms, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.peak_rate, betas=(0.9, 0.98), fused=fused)


def train(model: LlamaForCausalLM, batches: Batches, recipe: Recipe) -> float:
    """Train in place; returns tokens (padding included) per second."""
    device = next(model.parameters()).device
    optimizer = _optimizer(model, recipe, fused=device.type == "cuda")
    rng = np.random.default_rng(recipe.seed)
    stream = (batch for _ in iter(int, 1) for batch in batches.epoch(rng))
    began, tokens = time.perf_counter(), 0
    model.train()
    for step in range(recipe.steps):
        ids, weights = next(stream)
        for group in optimizer.param_groups:
            group["lr"] = _rate(recipe, step)
        loss = loss_of(model, ids, weights)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        tokens += ids.numel()
        if step % 100 == 99 or step + 1 == recipe.steps:
            value, seconds = loss.item(), time.perf_counter() - began
            print(f"step {step + 1} loss {value:.3f} {tokens / seconds:,.0f} tokens/s", flush=True)
    return tokens / (time.perf_counter() - began)


def save_model(model: LlamaForCausalLM, folder: Path) -> None:
    """Write config.json, generation_config.json and model.safetensors.

    Weights are stored in bfloat16, which the training's autocast saw anyway and which halves the
    file. The configuration asks for float32, in which greedy answers do not depend on the batch
    and CPUs without bfloat16 instructions are not slow; widening the weights is exact.
    """
    model.to(torch.bfloat16).save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    tokens = {"bos_token_id": BEGIN_ID, "eos_token_id": END_ID, "pad_token_id": PAD_ID}
    (folder / "generation_config.json").write_text(json.dumps(tokens, indent=2) + "\n")
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config.pop("torch_dtype", None)
    config["dtype"] = "float32"
    path.write_text(json.dumps(config, indent=2) + "\n")
