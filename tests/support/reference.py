"""Greedy generation by `transformers`: the answer that every path through Penstock must give."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM


@dataclass(frozen=True)
class Reference:
    """Generated token ids with their log-probabilities, and those of the prompt's tokens."""

    tokens: list[int]
    logprobs: list[float]
    prompt_logprobs: list[float]  # of the second prompt token and those after it


class ReferenceModel:
    """A checkpoint in float32 with its tokenizer."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        # Only the eager attention knows soft caps.
        self._model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        ).eval()

    @torch.inference_mode()
    def generate(self, text: str, max_new_tokens: int) -> Reference:
        """Greedy, past any EOS token."""
        prompt = torch.tensor([self.tokenizer.encode(text).ids])
        output = self._model(prompt, use_cache=True)
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
