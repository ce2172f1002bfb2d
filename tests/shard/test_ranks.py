"""How many tokens are more likely than one, wherever its log-probability is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from penstock_proto import shard_pb2
from penstock_shard.ranks.parallel import Group
from penstock_shard.steps.scores import joined, scores_of
from support.joined_ranks import joined_ranks
from support.local_shard import LocalShard, load_model
from support.shard_driver import neutral

RANDOM = np.random.default_rng(7)
PROMPTS = [RANDOM.integers(3, 301, length).tolist() for length in (31, 12, 9)]
LIKELY = 3  # so many most likely tokens, where any are asked for


def plain_rank(row: list[float], token: int) -> int:
    return 1 + sum(value > row[token] for value in row)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("top_n", [0, 5])
def test_ranks_of_random_logits(dtype: torch.dtype, top_n: int) -> None:
    """In half precision many are equal: they share a rank."""
    torch.manual_seed(0)
    logits = (torch.randn(7, 1009) * 3).to(dtype)
    tokens = torch.randint(0, 1009, (7,))
    tokens[0], tokens[1] = logits[0].argmax(), logits[1].argmin()
    logits[2] = 1.5
    logits[3, :900] = -torch.inf  # as of tokens that the model cannot say
    tokens[3] = 17
    pieces = [scores_of(logits[rows], tokens[rows], top_n) for rows in (slice(4), slice(4, 7))]
    found = joined(pieces).on_host().rank
    assert found.dtype == torch.int32
    rows = zip(logits.tolist(), tokens.tolist(), strict=True)
    assert found.tolist() == [plain_rank(row, token) for row, token in rows]
    assert found[0] == 1 and found[2] == 1 and found[3] == 110


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_ranks_on_a_gpu(dtype: torch.dtype) -> None:
    """Those of the CPU, and the host waits for nothing."""
    torch.manual_seed(0)
    logits, tokens = torch.randn(5, 128256).to(dtype), torch.randint(0, 128256, (5,))
    there = logits.cuda(), tokens.cuda()
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = scores_of(*there, 5).rank
    finally:
        torch.cuda.set_sync_debug_mode(before)
    assert found.cpu().tolist() == scores_of(logits, tokens, 5).rank.tolist()


def test_ranks_among_the_likely_are_places() -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 500).expand(20, -1)
    tokens = logits[0].topk(20).indices
    scores = scores_of(logits, tokens, 20)
    assert scores.top_token is not None
    assert scores.rank.tolist() == list(range(1, 21))
    assert (scores.top_token == tokens).all()


def scored(shard: LocalShard) -> list[shard_pb2.StepResult]:
    """Prompts in two steps, and three steps behind them; the last prompt asks for nothing."""
    wild = {"temperature": 4.0, "seed": 5}
    wanted = [neutral(top_n=LIKELY, **wild), neutral(logprobs=True, **wild), neutral(**wild)]
    admit = [
        shard.admission(
            slot,
            PROMPTS[slot],
            wanted[slot],
            prompt_logprobs=slot < 2,
            prompt_top_n=LIKELY * (slot == 1),
        )
        for slot in range(3)
    ]
    halves = [len(prompt) // 2 for prompt in PROMPTS]
    rests = [len(prompt) - half for prompt, half in zip(PROMPTS, halves, strict=True)]
    first = shard.run(admit=admit, chunk_slot=range(3), chunk_length=halves, decode_changed=True)
    second = shard.run(chunk_slot=range(3), chunk_length=rests)
    return [*first, *second, *shard.run(decode_changed=True, decode=range(3), repeat=3)]


@pytest.mark.parametrize("count", [1, 2])
def test_ranks_of_prompt_and_drawn_tokens(checkpoint: Callable[[str], Path], count: int) -> None:
    """As one rank, and as two that hold half of the vocabulary each."""
    folder = checkpoint("llama3")
    shard_results = (
        scored(LocalShard(load_model(folder)))
        if count == 1
        else joined_ranks(folder, count, scored)
    )
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    drawn = [result.token for result in shard_results if result.token]
    whole = [[*prompt, *(row[slot] for row in drawn)] for slot, prompt in enumerate(PROMPTS)]
    with torch.inference_mode():
        logits = [reference(torch.tensor([tokens])).logits[0] for tokens in whole]
    prompts: dict[int, list[int]] = {0: [], 1: []}
    for part in (part for result in shard_results for part in result.prompt):
        assert len(part.rank) == len(part.logprob)
        prompts[part.slot] += part.rank
    for slot, ranks in prompts.items():
        assert len(ranks) == len(PROMPTS[slot]) - 1
        check(ranks, logits[slot], whole[slot][1 : len(PROMPTS[slot])])
    assert not any(result.refused for result in shard_results)
    for slot in range(3):  # also of the row that did not ask: the others' step has them
        ranks = [result.rank[slot] for result in shard_results if result.token]
        check(ranks, logits[slot][len(PROMPTS[slot]) - 1 :], whole[slot][len(PROMPTS[slot]) :])
    for result in shard_results:
        for top in result.top:
            if result.token[top.row] in (likely := list(top.token)):
                assert result.rank[top.row] == 1 + likely.index(result.token[top.row])


def check(ranks: list[int], logits: Tensor, tokens: list[int]) -> None:
    """ranks: of tokens[i] by logits[i], where neighbours may be as near as rounding."""
    assert max(ranks) > LIKELY
    for rank, row, token in zip(ranks, logits, tokens, strict=False):
        assert (row > row[token] + 1e-4).sum() < rank <= (row > row[token] - 1e-4).sum()


def test_nobody_asked(checkpoint: Callable[[str], Path]) -> None:
    shard = LocalShard(load_model(checkpoint("llama3")))
    asked = shard.admission(0, PROMPTS[0], neutral(temperature=1.0))
    [result] = shard.run(admit=[asked], chunk_slot=[0], chunk_length=[len(PROMPTS[0])])
    assert result.token and not result.rank and not result.logprob and not result.prompt


def test_sums_in_the_order_of_the_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an element stands, and beside how many, changes nothing."""
    torch.manual_seed(0)
    parts = torch.randn(5, 40, 64).mul_(torch.randint(-8, 8, (5, 40, 64)).exp2())

    def sums(rows: slice) -> Tensor:
        def all_gather(found: list[Tensor], x: Tensor) -> None:
            for into, part in zip(found, parts, strict=True):
                into.copy_(part[rows])

        monkeypatch.setattr("torch.distributed.all_gather", all_gather)
        group = Group(1, 5).in_order()
        return group.all_reduce(parts[1, rows])

    total = parts[0]
    for part in parts[1:]:
        total = total + part
    assert torch.equal(sums(slice(40)), total)
    assert torch.equal(sums(slice(7, 9)), total[7:9])
    assert torch.equal(Group().in_order().all_reduce(parts[0]), parts[0])
