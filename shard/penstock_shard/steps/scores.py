"""Log-probabilities of the model's own distribution, before penalties and temperature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from penstock_kernels.sampler import log_probabilities, ranks
from penstock_shard.device import download, upload

MAX_GIVEN = 256  # tokens that a sequence wants to know of at each place


@dataclass(frozen=True, slots=True)
class Given:
    """Tokens that rows want to know the log-probabilities of, whatever was chosen."""

    counts: NDArray[np.int64]  # [rows]
    tokens: Tensor  # [rows, width] int64; of a row that wants fewer, the rest is token 0

    @classmethod
    def of(cls, wanted: Sequence[NDArray[np.int64]], device: torch.device) -> Given | None:
        """wanted: of each row. None where no row wants any."""
        counts = np.array([len(tokens) for tokens in wanted], np.int64)
        if not counts.any():
            return None
        padded = np.zeros((len(wanted), counts.max()), np.int64)
        for row, tokens in zip(padded, wanted, strict=True):
            row[: len(tokens)] = tokens
        return cls(counts, upload(padded, device))

    @property
    def width(self) -> int:
        """The most that any row wants."""
        return self.tokens.shape[1]


@dataclass(frozen=True, slots=True)
class Scores:
    """Of the tokens themselves, and of others in their places: the n most likely, most likely
    first, and behind them those that were given."""

    logprob: Tensor  # [tokens] float32
    rank: Tensor  # [tokens] int32: 1 + the number of tokens that are more likely
    top_token: Tensor | None  # [tokens, n + width of given] int64
    top_logprob: Tensor | None  # [tokens, n + width of given] float32

    def part(self, start: int, stop: int) -> Scores:
        """Of the tokens start..stop: views, as what is on the host may still be under way."""
        return Scores(
            self.logprob[start:stop],
            self.rank[start:stop],
            None if self.top_token is None else self.top_token[start:stop],
            None if self.top_logprob is None else self.top_logprob[start:stop],
        )

    def on_host(self) -> Scores:
        """Launch the copies to the host."""
        return Scores(
            download(self.logprob),
            download(self.rank),
            None if self.top_token is None else download(self.top_token),
            None if self.top_logprob is None else download(self.top_logprob),
        )


def scoring_bytes(rows: int, vocabulary: int, itemsize: int) -> int:
    """The most that scoring so many rows holds: their logits, as parts and joined, and three times
    in float32 (themselves, their exponentials, what compares them)."""
    return rows * vocabulary * (2 * itemsize + 3 * torch.float32.itemsize)


def columns(top_n: int, given: int, width: int, given_width: int) -> list[int]:
    """Those of one row: so many most likely tokens, and so many given ones.

    width: of all columns; given_width: of those for given tokens, which are the last.
    """
    likely = width - given_width
    return [*range(min(top_n, likely)), *range(likely, likely + given)]


def scores_of(
    logits: Tensor,
    tokens: Tensor,
    top_n: int,
    given: Tensor | None = None,
    rows_alone: bool = False,
) -> Scores:
    """logits: [tokens, vocabulary]; tokens: [tokens] int64; top_n: 0 for none; given: [tokens,
    width] int64, as of `Given`; rows_alone: as of `ops.Sampler`."""
    if rows_alone and len(logits) > 1:
        places = [slice(row, row + 1) for row in range(len(logits))]
        return joined(
            [
                scores_of(logits[at], tokens[at], top_n, None if given is None else given[at])
                for at in places
            ]
        )
    logits = logits.float()
    logprob, total = log_probabilities(logits, tokens)
    rank = ranks(logits, tokens)
    others: list[tuple[Tensor, Tensor]] = []
    if top_n:
        top = logits.topk(min(top_n, logits.shape[1]), dim=1)
        others.append((top.indices, top.values))
    if given is not None:
        others.append((given, logits.gather(1, given)))
    if not others:
        return Scores(logprob, rank, None, None)
    token, value = (torch.cat(parts, dim=1) for parts in zip(*others, strict=True))
    return Scores(logprob, rank, token, value - total.unsqueeze(1))


def joined(pieces: Sequence[Scores]) -> Scores:
    """Pieces of the same columns, one behind the other."""
    top_tokens = [piece.top_token for piece in pieces if piece.top_token is not None]
    top_logprobs = [piece.top_logprob for piece in pieces if piece.top_logprob is not None]
    return Scores(
        torch.cat([piece.logprob for piece in pieces]),
        torch.cat([piece.rank for piece in pieces]),
        torch.cat(top_tokens) if top_tokens else None,
        torch.cat(top_logprobs) if top_logprobs else None,
    )
