"""Log-probabilities of the model's own distribution, before penalties and temperature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from penstock_kernels.sampler import log_probabilities
from penstock_shard.device import download


@dataclass(frozen=True, slots=True)
class Scores:
    """Of given tokens, and of the most likely ones in their places."""

    logprob: Tensor  # [tokens] float32
    top_token: Tensor | None  # [tokens, n] int64, most likely first
    top_logprob: Tensor | None  # [tokens, n] float32

    def part(self, start: int, stop: int, top_n: int) -> Scores:
        """Of the tokens start..stop, with so many of the most likely."""
        if self.top_token is None or self.top_logprob is None or not top_n:
            return Scores(self.logprob[start:stop], None, None)
        return Scores(
            self.logprob[start:stop],
            self.top_token[start:stop, :top_n],
            self.top_logprob[start:stop, :top_n],
        )


def scores_of(logits: Tensor, tokens: Tensor, top_n: int) -> Scores:
    """logits: [tokens, vocabulary]; tokens: [tokens] int64; top_n: 0 for none."""
    logits = logits.float()
    logprob, total = log_probabilities(logits, tokens)
    if not top_n:
        return Scores(logprob, None, None)
    top = logits.topk(min(top_n, logits.shape[1]), dim=1)
    return Scores(logprob, top.indices, top.values - total.unsqueeze(1))


def joined_on_host(pieces: Sequence[Scores]) -> Scores:
    """Put pieces of the same `top_n` together and launch their copies to the host."""
    top_tokens = [piece.top_token for piece in pieces if piece.top_token is not None]
    top_logprobs = [piece.top_logprob for piece in pieces if piece.top_logprob is not None]
    return Scores(
        download(torch.cat([piece.logprob for piece in pieces])),
        download(torch.cat(top_tokens)) if top_tokens else None,
        download(torch.cat(top_logprobs)) if top_logprobs else None,
    )
