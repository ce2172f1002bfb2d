"""Greedy tokens of every family equal transformers'.

Through the runner in this process: as one rank, and those with blocks, norms or tensors other than
Llama's as two. `tests/end_to_end/test_parity.py` does the same through the server for a few.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from support.checkpoints import BLOCKS_OF_LLAMA, FAMILIES, make_checkpoint
from support.joined_ranks import joined_ranks
from support.local_shard import LocalShard, interpret, load_model
from support.reference import ReferenceModel

pytestmark = [
    pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning:triton"),
    pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning"),
]
# Rows whose switches other rows have too: on two ranks they run with `make test-full`.
ALIKE = FAMILIES[FAMILIES.index("starcoder2") :]
OTHERS = [name for name in FAMILIES if name not in BLOCKS_OF_LLAMA]
TEXTS = ("Water runs through steel pipes into the penstock", "The river", "a")
COUNT = 40  # longer than any window of the checkpoints


def greedy(shard: LocalShard, prompts: list[list[int]]) -> list[list[int]]:
    """The first prompt in two chunks, then all decode together."""
    first, *others = prompts
    half = len(first) // 2
    shard.run(
        admit=[shard.admission(0, first)], chunk_slot=[0], chunk_length=[half], decode_changed=True
    )
    [result] = shard.run(chunk_slot=[0], chunk_length=[len(first) - half], decode_changed=True)
    tokens = [[int(token)] for token in result.token]
    tokens += [[shard.start(slot, prompt)] for slot, prompt in enumerate(others, 1)]
    slots = list(range(len(prompts)))
    rest = shard.decode(slots, COUNT - 1)
    return [one + more for one, more in zip(tokens, rest, strict=True)]


reference_of = cache(ReferenceModel)


def prompts_of(folder: Path) -> list[list[int]]:
    return [reference_of(folder).tokenizer.encode(text).ids for text in TEXTS]


def expected_of(folder: Path, found: list[list[int]]) -> list[list[int]]:
    """The tokens that transformers gives behind the prompts, which is quicker where they are those
    that were found."""
    texts = zip(TEXTS, found, strict=True)
    return [reference_of(folder).generate(text, COUNT, guess).tokens for text, guess in texts]


@pytest.mark.parametrize(
    ("family", "shards"),
    [(name, 1) for name in FAMILIES]
    + [pytest.param(name, 2, marks=pytest.mark.full if name in ALIKE else ()) for name in OTHERS],
)
def test_parity(checkpoint: Callable[[str], Path], family: str, shards: int) -> None:
    folder = checkpoint(family)
    prompts = prompts_of(folder)
    if shards == 1:
        found = greedy(LocalShard(load_model(folder)), prompts)
    else:
        found = joined_ranks(folder, shards, lambda shard: greedy(shard, prompts))
    assert found == expected_of(folder, found)


@pytest.mark.parametrize(
    "family",
    [
        *("gemma2", "gpt2", "olmo2_bias", "gpt_oss"),
        *(
            pytest.param(name, marks=pytest.mark.full)
            for name in ("gpt_neox", "mixtral", "qwen2_moe", "cohere2")
        ),
    ],
)
def test_kernels_compute_what_torch_does(tmp_path: Path, family: str) -> None:
    """By Triton's interpreter: soft caps and sandwiches; parallel; learned positions, no rope;
    norms of all heads together; experts; neighbours rotated, and layers without positions."""
    loaded = load_model(make_checkpoint(tmp_path / "model", family))
    prompt = list(range(3, 24))

    def tokens(shard: LocalShard) -> list[int]:
        return [shard.start(0, prompt), *shard.decode([0], 3)[0]]

    assert tokens(interpret(LocalShard(loaded), loaded, (1,))) == tokens(LocalShard(loaded))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", OTHERS)
def test_parity_on_a_gpu(tmp_path: Path, family: str, dtype: str) -> None:
    """float32: token for token. bfloat16: graphs and kernels are those of a real model's width."""
    wide = {"head_dim": 256} if family.startswith("gemma") else {}
    if family == "gpt_oss" and dtype == "bfloat16":
        wide = {"head_dim": 64}  # which Hopper's kernels take
    folder = make_checkpoint(tmp_path / "model", family, **wide)
    shard = LocalShard(load_model(folder, device="cuda", dtype=dtype))
    found = greedy(shard, prompts_of(folder))
    expected = expected_of(folder, found)
    if dtype == "float32":
        assert found == expected
    else:  # near ties are decided by rounding, and all behind them with them
        assert sum(one[0] == other[0] for one, other in zip(found, expected, strict=True)) >= 2
