"""Greedy generation by `transformers`: the answer that every path through Penstock must give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoModelForCausalLM, DynamicCache

# Kinds of rotation whose angles for all tokens follow from how many there are.
BY_LENGTH = ('"dynamic"', '"longrope"')
Scales = Callable[[int], tuple[float, float]]  # of keys and values, by layer


@dataclass(frozen=True)
class Reference:
    """Generated token ids with their log-probabilities, and those of the prompt's tokens."""

    tokens: list[int]
    logprobs: list[float]
    prompt_logprobs: list[float]  # of the second prompt token and those after it


class RoundedCache(DynamicCache):  # type: ignore[misc]
    """Whose keys and values are those of FP8, with the scales of each layer."""

    def __init__(self, dtype: torch.dtype, scales: Scales) -> None:
        super().__init__()
        self._dtype, self._scales = dtype, scales

    def update(self, keys: Tensor, values: Tensor, layer: int, *more: Any) -> Any:
        parts = zip((keys, values), self._scales(layer), strict=True)
        rounded = (self._rounded(part, scale) for part, scale in parts)
        return super().update(*rounded, layer, *more)

    def _rounded(self, x: Tensor, scale: float) -> Tensor:
        largest = torch.finfo(self._dtype).max
        return (x / scale).clamp(-largest, largest).to(self._dtype).float() * scale


def no_scales(layer: int) -> tuple[float, float]:
    return 1.0, 1.0


class ReferenceModel:
    """A checkpoint in float32 with its tokenizer. kv: type of its KV cache; scales: of that."""

    def __init__(
        self, folder: Path, kv: torch.dtype | None = None, scales: Scales = no_scales
    ) -> None:
        self._kv, self._scales = kv, scales
        config = (folder / "config.json").read_text()
        self._at_once = kv is None and not any(kind in config for kind in BY_LENGTH)
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        # Only the eager attention knows soft caps.
        self._model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        ).eval()

    @torch.inference_mode()
    def generate(self, text: str, max_new_tokens: int, guess: Sequence[int] = ()) -> Reference:
        """Greedy, past any EOS token.

        guess: what another found. One pass over it says whether each of its tokens is the likeliest
        behind those before; where one is not, the tokens are made one by one.
        """
        ids = self.tokenizer.encode(text).ids
        if self._at_once and len(guess) == max_new_tokens:
            output = self._model(torch.tensor([[*ids, *guess[:-1]]]), use_cache=False)
            scores = output.logits[0].float().log_softmax(-1)
            if scores[len(ids) - 1 :].argmax(-1).tolist() == [*guess]:
                behind = torch.tensor([*ids[1:], *guess])
                given = scores.gather(1, behind[:, None])[:, 0].tolist()
                return Reference([*guess], given[len(ids) - 1 :], given[: len(ids) - 1])
        prompt = torch.tensor([ids])
        cache = None if self._kv is None else RoundedCache(self._kv, self._scales)
        output = self._model(prompt, past_key_values=cache, use_cache=True)
        scores = output.logits[0].float().log_softmax(-1)
        prompt_logprobs = scores[:-1].gather(1, prompt[0, 1:, None])[:, 0].tolist()
        tokens: list[int] = []
        logprobs: list[float] = []
        while True:
            logprob, token = scores[-1].max(-1)
            tokens.append(int(token))
            logprobs.append(float(logprob))
            if len(tokens) == max_new_tokens:
                return Reference(tokens, logprobs, prompt_logprobs)
            output = self._model(
                token.view(1, 1), past_key_values=output.past_key_values, use_cache=True
            )
            scores = output.logits[0].float().log_softmax(-1)
