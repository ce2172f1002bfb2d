"""Documents as token ids and loss weights, encoded in parallel."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from .corpus import documents
from .document import BEGIN, SPECIAL_TOKENS
from .tokenizer import CONTEXT

WEIGHT_UNIT = 0.1  # weights are stored as multiples of this


@dataclass(frozen=True, slots=True)
class Encoded:
    """Documents one behind the other."""

    ids: NDArray[np.uint16]  # [tokens]
    weights: NDArray[np.uint8]  # [tokens], of each token as a target, in WEIGHT_UNIT
    lengths: NDArray[np.int32]  # [documents]


def encode(tokenizer: Tokenizer, seed: int, count: int) -> Encoded:
    """`count` documents of `seed`; each begins with BEGIN and has at most CONTEXT tokens.

    Every segment is encoded alone, because a server encodes the prompt alone too.
    """
    begin = SPECIAL_TOKENS.index(BEGIN)
    ids: list[int] = []
    weights: list[int] = []
    lengths: list[int] = []
    for document in documents(seed, count):
        tokens, marks = [begin], [0]
        for segment in document:
            piece = tokenizer.encode(segment.text, add_special_tokens=False).ids
            tokens += piece
            marks += [round(segment.weight / WEIGHT_UNIT)] * len(piece)
        ids += tokens[:CONTEXT]
        weights += marks[:CONTEXT]
        lengths.append(min(len(tokens), CONTEXT))
    return Encoded(
        np.array(ids, np.uint16), np.array(weights, np.uint8), np.array(lengths, np.int32)
    )


def _encode(serialised: str, seed: int, count: int) -> Encoded:
    return encode(Tokenizer.from_str(serialised), seed, count)


def encode_corpus(tokenizer: Tokenizer, seeds: Sequence[int], count: int) -> Encoded:
    """`count` documents of each seed, the same whatever the number of processes."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    with ProcessPoolExecutor() as pool:
        shards = list(pool.map(_encode, repeat(tokenizer.to_str()), seeds, repeat(count)))
    return Encoded(
        np.concatenate([shard.ids for shard in shards]),
        np.concatenate([shard.weights for shard in shards]),
        np.concatenate([shard.lengths for shard in shards]),
    )
