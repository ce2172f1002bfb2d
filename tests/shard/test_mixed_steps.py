"""Steps of prompt chunks beside decode rows as graphs have them: one buffer in, one replay.

On a CPU the step that a graph would hold is run by Triton's interpreter, one call a replay.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from penstock_proto import shard_pb2
from penstock_shard.steps import mixed_graphs
from penstock_shard.steps.mixed_graphs import Layout, MixedStep, buckets_for
from penstock_shard.steps.rows import Chunks
from penstock_shard.weights.loaded_model import LoadedModel
from support.local_shard import LocalShard, interpret, load_model
from support.shard_driver import neutral

pytestmark = [
    pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning:triton"),
    pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning"),
]
SHARED = np.random.default_rng(1).integers(3, 301, 40).tolist()


def interpreted(loaded: LoadedModel, sizes: tuple[int, ...], prefill_tokens: int) -> LocalShard:
    """A shard whose steps are those of the graphs, by Triton's kernels."""
    return interpret(LocalShard(loaded, max_prefill_tokens=prefill_tokens), loaded, sizes)


def schedule(shard: LocalShard, sampling: shard_pb2.Sampling | None) -> list[list[int]]:
    """Arrivals among decoding rows, chunks cut anywhere, a prefix from the cache, one that leaves.

    Returns the tokens of every result.
    """
    found = []

    def run(**fields: object) -> None:
        [result] = shard.run(**fields)
        found.append(list(result.token))

    run(admit=[shard.admission(0, SHARED, sampling)], chunk_slot=[0], chunk_length=[33])
    prompt = SHARED[:32] + [5, 6, 7]
    shared = 32 // shard.runner.limits.block_size
    shard.blocks[1] = shard.blocks[0][:shared] + shard.blocks[1][shared:]
    run(
        admit=[shard.admission(1, prompt, cached=32), shard.admission(2, [9], sampling)],
        chunk_slot=[2, 0, 1],
        chunk_length=[1, 7, 2],
    )
    run(decode_changed=True, decode=[2, 0], chunk_slot=[1], chunk_length=[1])
    run(decode_changed=True, decode=[1, 0, 2])
    run(
        release=[0],
        admit=[shard.admission(3, SHARED[::-1], sampling)],
        decode_changed=True,
        decode=[1, 2],
        chunk_slot=[3],
        chunk_length=[19],
    )
    run(chunk_slot=[3], chunk_length=[21])
    run(decode_changed=True, decode=[3, 1, 2])
    run()
    return found


@pytest.mark.parametrize("sampled", [pytest.param(False, marks=pytest.mark.full), True])
def test_steps_of_graphs_equal_steps_of_torch(
    checkpoint: Callable[[str], Path], sampled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_model(checkpoint("llama3"))
    sampling = neutral(temperature=1.0, seed=3, presence_penalty=0.5) if sampled else None
    expected = schedule(LocalShard(loaded), sampling)
    assert [len(tokens) for tokens in expected] == [0, 2, 3, 3, 2, 3, 3, 3]
    shard = interpreted(loaded, (1, 2, 4), 64)
    # What they cost is measured at warmup, and leaves nothing behind.
    monkeypatch.setattr(mixed_graphs, "COSTED", (16, 17))
    costs = shard.runner.step_costs()
    assert set(costs) == {16} and costs[16] > 0
    answer = shard_pb2.WarmupResponse(cost_rows=costs.keys(), cost_seconds=costs.values())
    assert list(answer.cost_rows) == [16]
    assert schedule(shard, sampling) == expected


@pytest.mark.gpu
@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("family", ["llama3", "mistral", "qwen3"])
def test_graphs_on_a_gpu_equal_steps_without(
    checkpoint: Callable[[str], Path], family: str, sampled: bool
) -> None:
    folder = checkpoint(family)
    sampling = neutral(temperature=1.0, seed=3, presence_penalty=0.5) if sampled else None
    plain = LocalShard(load_model(folder, device="cuda", cuda_graphs=(0,)))
    graphs = LocalShard(load_model(folder, device="cuda", cuda_graphs=(1, 4)))
    on_cpu = LocalShard(load_model(folder))
    expected = schedule(plain, sampling)
    assert schedule(graphs, sampling) == expected
    assert schedule(on_cpu, sampling) == expected


def test_prompts_that_want_logprobs_are_computed_without_a_graph(
    checkpoint: Callable[[str], Path],
) -> None:
    loaded = load_model(checkpoint("llama3"))
    results = []
    for shard in (LocalShard(loaded), interpreted(loaded, (1,), 64)):
        fields = {"chunk_slot": [0], "chunk_length": [40]}
        [result] = shard.run(admit=[shard.admission(0, SHARED, prompt_logprobs=True)], **fields)
        results.append(result)
    assert len(results[0].prompt[0].logprob) == 39
    np.testing.assert_allclose(
        results[0].prompt[0].logprob, results[1].prompt[0].logprob, atol=1e-4
    )


@pytest.mark.parametrize("most", [1, 16, 17, 500, 4352])
def test_buckets_ascend_to_the_largest_step(most: int) -> None:
    buckets = buckets_for(most)
    assert buckets == sorted(set(buckets)) and buckets[-1] == most
    assert all(
        after <= max(1.2 * before, before + 128) for before, after in itertools.pairwise(buckets)
    )


def test_a_step_is_packed_as_its_layout_says() -> None:
    """Two decode rows, a whole chunk behind a partial one, and padding."""
    chunks = Chunks(np.array([4, 2]), np.array([8, 0]), np.array([3, 2]), np.array([False, True]))
    tokens = [np.array([11, 12, 13], np.int32), np.array([21, 22], np.int32)]
    pieces = np.array([[2, 3], [5, 2]], np.int32)
    step = MixedStep(np.array([7, 1]), chunks, tokens, pieces)
    layout = Layout(rows=9, sequences=6, pieces=4)
    packed = torch.from_numpy(step.pack(layout, scratch=8))
    inputs = layout.split(torch.cat((packed, torch.full((5,), 99))))
    assert inputs.slot.tolist() == [7, 1, 4, 4, 4, 2, 2, 8, 8]
    assert inputs.token.tolist() == [-1, -1, 11, 12, 13, 21, 22, 0, 0]
    assert inputs.position.tolist() == [0, 0, 8, 9, 10, 0, 1, 0, 0]
    assert inputs.end.tolist() == [0, 1, 6, 4, 4, 4]
    assert inputs.pieces.tolist() == [[2, 3], [5, 2], [0, 0], [0, 0]]
    assert inputs.live.tolist() == [2]
