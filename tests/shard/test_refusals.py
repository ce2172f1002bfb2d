"""Sequences that a shard refuses, and what becomes of the others: nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from penstock_proto import shard_pb2
from penstock_proto.shard_pb2 import LogitBias
from penstock_shard.sampling.sample_graphs import SampleGraphs
from support.local_shard import LocalShard, interpret, load_model
from support.shard_driver import neutral

BAD_ADMISSION = shard_pb2.Refusal.BAD_ADMISSION
NOT_A_NUMBER = shard_pb2.Refusal.NOT_A_NUMBER
NAN, HARMLESS = 7, 8  # tokens: the embedding of one is NaN
# What sequences with a NaN ask for: each goes another way from logits to a token.
VICTIMS = (
    neutral(),
    neutral(temperature=1.0, seed=1),
    neutral(temperature=0.8, seed=2, top_p=0.9, top_k=20, min_p=0.01),
    neutral(temperature=1.0, seed=3, typical_p=0.9),
    neutral(
        repetition_penalty=1.3, presence_penalty=0.5, logit_bias=LogitBias(token=[5], value=[2])
    ),
    neutral(logprobs=True, top_n=3),
)
OTHERS = (
    neutral(logprobs=True, top_n=2),
    neutral(temperature=1.0, seed=9, top_p=0.9, frequency_penalty=0.5),
)
ALL = len(VICTIMS) + len(OTHERS)


def in_torch(folder: Path, **sizes: int) -> LocalShard:
    return LocalShard(load_model(folder), **sizes)


def on_gpu(graphs: tuple[int, ...]) -> Callable[..., LocalShard]:
    def make(folder: Path, **sizes: int) -> LocalShard:
        return LocalShard(load_model(folder, device="cuda", cuda_graphs=graphs), **sizes)

    return make


PLACES = [
    pytest.param(in_torch, id="torch"),
    pytest.param(on_gpu((0,)), id="cuda", marks=pytest.mark.gpu),
    pytest.param(on_gpu((1, ALL)), id="graphs", marks=pytest.mark.gpu),
]


def shard_with_nan(make: Callable[..., LocalShard], folder: Path) -> LocalShard:
    """It has NaN in one row of its embedding, which only some read."""
    shard = make(folder, max_slots=ALL)
    embedding = shard.runner.model.embedding.table
    with torch.inference_mode():
        embedding[NAN].fill_(torch.nan)
    return shard


def among_others(shard: LocalShard, special: int) -> list[Any]:
    """Results of others, whose rows stand between those of sequences with a special token; then of
    sequences in the blocks of those, which read no further than they wrote."""
    slots = list(range(shard.runner.limits.max_slots))
    wanted = (OTHERS[0], *VICTIMS, OTHERS[1])
    others = [slot for slot in slots if wanted[slot] in OTHERS]
    victims = [slot for slot in slots if slot not in others]
    anew, found = victims[:2], []

    def run(**fields: Any) -> shard_pb2.StepResult:
        [result] = shard.run(**fields)
        return result

    def keep(result: shard_pb2.StepResult, rows: Sequence[int]) -> None:
        tops = [(list(top.token), list(top.logprob)) for top in result.top if top.row in rows]
        found.append([(result.token[row], result.logprob[row]) for row in rows] + tops)

    tokens = {slot: [20 + slot, 30] if slot in others else [9, special, 11] for slot in slots}
    result = run(
        admit=[shard.admission(slot, tokens[slot], wanted[slot]) for slot in slots],
        chunk_slot=slots,
        chunk_length=[len(tokens[slot]) for slot in slots],
    )
    for _ in range(3):
        assert len(result.token) == len(slots)
        refused = [(refusal.slot, refusal.kind) for refusal in result.refused]
        expected = victims if special == NAN else []
        assert refused == [(slot, NOT_A_NUMBER) for slot in expected]
        assert all("not finite" in refusal.message for refusal in result.refused)
        keep(result, others)
        result = run(decode_changed=True, decode=slots)
    run(release=victims, decode_changed=True, decode=others)
    result = run(
        admit=[shard.admission(slot, [40 + slot], OTHERS[0]) for slot in anew],
        chunk_slot=anew,
        chunk_length=[1 for _ in anew],
    )
    for _ in range(3):
        assert not result.refused
        keep(result, range(len(others) + len(anew)))
        result = run(decode_changed=True, decode=[*others, *anew])
    return found


@pytest.mark.parametrize("make_shard", PLACES)
def test_nan_in_some_rows_changes_no_other(
    checkpoint: Callable[[str], Path], make_shard: Callable[..., LocalShard]
) -> None:
    """n7: bit for bit, log-probabilities too; nor do the blocks that held NaN."""
    shard = shard_with_nan(make_shard, checkpoint("llama2"))
    expected = among_others(shard, HARMLESS)
    shard.release(*shard.runner.book.active.nonzero()[0].tolist())
    assert among_others(shard, NAN) == expected


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::DeprecationWarning")
def test_steps_of_graphs_go_on_behind_a_row_without_a_token(
    checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By Triton's interpreter: the next step reads the embedding of another token."""
    monkeypatch.setattr(SampleGraphs, "capture", lambda self, capture: None)  # all are greedy
    loaded = load_model(checkpoint("llama2"))
    shard = LocalShard(loaded, max_slots=2, max_prefill_tokens=4)
    with torch.inference_mode():
        loaded.decoder.embedding.table[NAN].fill_(torch.nan)
    expected = [shard.start(0, [20, 30]), *shard.decode([0], 2)[0]]
    shard.release(0)
    interpret(shard, loaded, (2,))
    tokens = {0: [20, 30], 1: [9, NAN]}
    admit = [shard.admission(slot, tokens[slot]) for slot in tokens]
    results = shard.run(admit=admit, chunk_slot=[0, 1], chunk_length=[2, 2])
    results += shard.run(decode_changed=True, decode=[1, 0], repeat=2)
    rows = (0, 1, 1)
    assert [result.token[row] for result, row in zip(results, rows, strict=True)] == expected
    assert [[one.slot for one in result.refused] for result in results] == [[1]] * 3


def test_nan_in_a_prompt_is_known_when_its_last_chunk_is_computed(
    checkpoint: Callable[[str], Path],
) -> None:
    shard = shard_with_nan(in_torch, checkpoint("llama2"))
    admit = [shard.admission(0, [3, NAN, *range(10, 20)])]
    [first] = shard.run(admit=admit, chunk_slot=[0], chunk_length=[5])
    assert not first.refused and not first.token
    [last] = shard.run(chunk_slot=[0], chunk_length=[7])
    assert [refusal.slot for refusal in last.refused] == [0] and len(last.token) == 1


def test_nan_among_the_log_probabilities_of_a_prompt(checkpoint: Callable[[str], Path]) -> None:
    """Known a chunk earlier."""
    shard = shard_with_nan(in_torch, checkpoint("llama2"))
    prompt = [*range(10, 15), NAN, *range(15, 20)]
    admit = [shard.admission(0, prompt, prompt_logprobs=True)]
    [first] = shard.run(admit=admit, chunk_slot=[0], chunk_length=[4])
    assert not first.refused and len(first.prompt[0].logprob) == 4
    [second] = shard.run(chunk_slot=[0], chunk_length=[4])
    assert [(one.slot, one.kind) for one in second.refused] == [(0, NOT_A_NUMBER)]


@pytest.mark.parametrize("make_shard", PLACES)
def test_admissions_that_cannot_be_computed_harm_no_other(
    checkpoint: Callable[[str], Path], make_shard: Callable[..., LocalShard]
) -> None:
    """C2: a token beyond the vocabulary, and a sequence that is too long for its blocks. They stay
    in every list until they are released, and are not computed."""
    folder = checkpoint("llama2")
    good, later = [20, 30, 40], [50, 60]
    plain = make_shard(folder)
    expected = [plain.start(0, good, OTHERS[0]), *plain.decode([0], 4)[0]]
    plain.release(0)
    begun = [plain.start(1, later), *plain.decode([1], 2)[0]]

    shard = make_shard(folder)
    cache = shard.runner.cache.clone()
    beyond, long = shard.admission(1, [5, 301, 5]), shard.admission(2, [9] * 130)
    [first] = shard.run(
        admit=[beyond, shard.admission(0, good, OTHERS[0]), long],
        chunk_slot=[1, 0, 2],
        chunk_length=[3, 3, 50],
    )
    assert [(one.slot, one.kind) for one in first.refused] == [
        (1, BAD_ADMISSION),
        (2, BAD_ADMISSION),
    ]
    assert "below 301" in first.refused[0].message and "1 to 96" in first.refused[1].message
    assert len(first.token) == len(first.logprob) == 2 and [top.row for top in first.top] == [1]
    [second] = shard.run(
        decode_changed=True, decode=[1, 0], chunk_slot=[2], chunk_length=[64],
        grant_slot=[2], grant_block=[shard.blocks[3][0]],
    )  # fmt: skip
    assert len(second.token) == 2 and not second.refused
    [third] = shard.run(decode_changed=True, decode=[1, 0], chunk_slot=[2], chunk_length=[16])
    fourth, fifth = shard.run(decode_changed=True, decode=[2, 0, 1], repeat=2)
    found = [first.token[1], second.token[1], third.token[1], fourth.token[1], fifth.token[1]]
    assert found == expected
    assert len(third.token) == 3 and len(fourth.token) == len(fifth.token) == 3
    [lonely] = shard.run(decode_changed=True, decode=[1, 2])  # nothing is left to compute
    assert len(lonely.token) == 2
    changed = (shard.runner.cache != cache).any(dim=(0, 1, 2, 4, 5)).nonzero().flatten()
    assert set(changed.tolist()) - {0} == {shard.blocks[0][0]}
    shard.run(release=[0, 1, 2], decode_changed=True)
    assert [shard.start(1, later), *shard.decode([1], 2)[0]] == begun


def test_sampling_that_cannot_be_followed_is_refused(checkpoint: Callable[[str], Path]) -> None:
    shard = in_torch(checkpoint("llama2"))
    admit = [shard.admission(0, [3], neutral(top_p=0.0)), shard.admission(1, [4])]
    [result] = shard.run(admit=admit, chunk_slot=[0, 1], chunk_length=[1, 1])
    assert [one.slot for one in result.refused] == [0] and "above 0" in result.refused[0].message
    assert len(result.token) == 2
