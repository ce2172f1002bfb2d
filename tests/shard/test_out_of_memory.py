"""Steps that do not fit in memory: their sequences are refused, and the shard goes on.

Memory is limited for real, by RLIMIT_AS of the shard's process, to what it has once it is warm and
a little more. A step that scores a prompt needs much more: logits for each of its tokens.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from penstock_proto import shard_pb2
from penstock_shard.memory.out_of_memory import is_out_of_memory
from penstock_shard.ranks.agreement import allocated
from penstock_shard.ranks.parallel import Group
from penstock_shard.steps import prompt_scores, runner
from support.checkpoints import make_checkpoint
from support.joined_ranks import joined_ranks
from support.local_shard import LocalShard, load_model
from support.shard_driver import Shards, admission, neutral, running_shards

OUT_OF_MEMORY = shard_pb2.Refusal.OUT_OF_MEMORY
VOCABULARY = 60_000  # 256 rows of its logits take 60 MB
SPARE = 24 << 20  # bytes


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with a large vocabulary."""
    return make_checkpoint(
        tmp_path_factory.mktemp("wide") / "model", "llama2", vocab_size=VOCABULARY
    )


@pytest.fixture(scope="module")
def shards(wide: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shards]:
    with running_shards(wide, tmp_path_factory.mktemp("s"), 1) as shards:
        shards.warm_up(max_prefill_tokens=300, max_sequence_length=320, max_batch_total_tokens=4096)
        yield shards


@pytest.fixture(scope="module")
def pair(wide: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shards]:
    """The same on two ranks."""
    with running_shards(wide, tmp_path_factory.mktemp("p"), 2) as pair:
        pair.warm_up(max_prefill_tokens=300, max_sequence_length=320, max_batch_total_tokens=4096)
        yield pair


def limit_memory(shards: Shards, spare: int, rank: int = 0) -> None:
    """Let a shard have so many bytes more than it has now."""
    process = shards.processes[rank]
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + spare
    resource.prlimit(process.pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def test_a_step_without_memory_ends_its_sequences_and_no_other(shards: Shards) -> None:
    expected = shards.generate([[5, 6, 7], [9, 10]], 6)
    blocks = iter(range(1, 200))

    def some(count: int) -> list[int]:
        return [next(blocks) for _ in range(count)]

    shards.send(
        admit=[admission(0, [5, 6, 7], some(2))], chunk_slot=[0], chunk_length=[3],
        decode_changed=True,
    )  # fmt: skip
    assert not shards.receive().refused
    limit_memory(shards, SPARE)
    try:
        asking = admission(1, range(300), some(40), neutral(), prompt_logprobs=True, prompt_top_n=5)
        shards.send(
            admit=[asking], chunk_slot=[1], chunk_length=[300], decode_changed=True, decode=[0]
        )
        # What is under way by then names the slots that are refused, and one that is not.
        shards.send(
            admit=[admission(2, [9, 10], some(2))], chunk_slot=[2], chunk_length=[2],
            decode_changed=True, decode=[0, 1],
        )  # fmt: skip
        shards.send(decode_changed=True, decode=[0, 2, 1], repeat=2)
        failed, second, third, fourth = (shards.receive() for _ in range(4))
        assert not failed.HasField("error"), failed.error.message
        assert {(one.slot, one.kind) for one in failed.refused} == {
            (0, OUT_OF_MEMORY),
            (1, OUT_OF_MEMORY),
        }
        assert "did not fit in memory" in failed.refused[0].message
        assert [len(result.token) for result in (failed, second, third, fourth)] == [2, 3, 3, 3]
        assert not (second.refused or third.refused or fourth.refused)
        assert [second.token[2], third.token[1], fourth.token[1]] == expected[1][:3]
        shards.send(release=[0, 1, 2], decode_changed=True)
        assert not shards.receive().refused
        assert shards.generate([[5, 6, 7], [9, 10]], 6) == expected
    finally:
        limit_memory(shards, 1 << 40)
    assert "does not fit in memory" in shards.logs[0].read_text()


class Failing:
    """In place of a model: its forward pass finds no memory, so often."""

    def __init__(self, model: Any, times: int, error: Exception) -> None:
        self._model, self.times, self._error = model, times, error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def forward(self, *inputs: Any) -> Any:
        hidden = self._model.forward(*inputs)
        if self.times:
            self.times -= 1
            raise self._error
        return hidden


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_the_same_slots_serve_again(checkpoint: Callable[[str], Path], error: Exception) -> None:
    """Whichever type says it; in a command of several steps, and in a mixed one."""
    shard = LocalShard(load_model(checkpoint("llama2")))
    expected = [shard.start(0, [3, 4, 5]), *shard.decode([0], 5)[0]]
    shard.release(0)
    shard.start(0, [3, 4, 5])
    shard.start(1, [8, 9], neutral(temperature=1.0, seed=4, frequency_penalty=0.5))
    failing = Failing(shard.runner.model, 1, error)
    shard.runner.model = failing
    results = shard.run(decode_changed=True, decode=[0, 1], repeat=3)
    assert [[one.slot for one in result.refused] for result in results] == [[0, 1], [], []]
    assert all(len(result.token) == 2 for result in results)
    failing.times = 1
    shard.run(release=[0, 1], decode_changed=True)
    admit = [shard.admission(slot, [20 + slot, 7, 8, 9]) for slot in (0, 1)]
    [mixed] = shard.run(admit=admit, chunk_slot=[0, 1], chunk_length=[4, 2])
    assert [one.slot for one in mixed.refused] == [0, 1] and len(mixed.token) == 1
    [rest] = shard.run(chunk_slot=[1], chunk_length=[2], decode_changed=True, decode=[0])
    assert not rest.refused and list(rest.token) == [0, 0], "nothing of them is computed"
    shard.run(release=[0, 1], decode_changed=True)
    assert [shard.start(0, [3, 4, 5]), *shard.decode([0], 5)[0]] == expected


def test_other_errors_of_a_step_still_end_the_shard(checkpoint: Callable[[str], Path]) -> None:
    """What it left behind is not known."""
    shard = LocalShard(load_model(checkpoint("llama2")))
    shard.runner.model = Failing(shard.runner.model, 1, RuntimeError("CUDA error: illegal access"))
    with pytest.raises(RuntimeError, match="illegal access"):
        shard.start(0, [3, 4, 5])


class Two(Group):
    """Of two ranks, the other of which has all that is asked for."""

    def minimum(self, value: int, device: torch.device) -> int:
        return value


def test_one_of_several_ranks_does_not_go_on(checkpoint: Callable[[str], Path]) -> None:
    """The others wait in a collective of that step."""
    shard = LocalShard(load_model(checkpoint("llama2")))
    shard.runner.model = Failing(shard.runner.model, 1, MemoryError())
    shard.runner.group = Two(0, 2)
    with pytest.raises(MemoryError):
        shard.start(0, [3, 4, 5])


def test_a_rank_without_memory_to_score_a_prompt_is_known_before(pair: Shards) -> None:
    """Then no rank begins the step, and all go on with the next."""
    expected = pair.generate([[5, 6, 7], [9, 10]], 6)
    asking = admission(0, range(300), range(1, 41), neutral(), prompt_logprobs=True, prompt_top_n=5)
    limit_memory(pair, SPARE)
    try:
        pair.send(admit=[asking], chunk_slot=[0], chunk_length=[300], decode_changed=True)
        # Under way by then, and names the slot that is refused.
        pair.send(decode_changed=True, decode=[0], repeat=2)
        failed, *others = (pair.receive() for _ in range(3))
        assert [(one.slot, one.kind) for one in failed.refused] == [(0, OUT_OF_MEMORY)]
        assert [len(result.token) for result in others] == [1, 1]
        pair.send(release=[0], decode_changed=True)
        assert not pair.receive().refused
        assert pair.generate([[5, 6, 7], [9, 10]], 6) == expected
    finally:
        limit_memory(pair, 1 << 40)
    assert all("does not fit in memory" in log.read_text() for log in pair.logs)


@pytest.mark.parametrize("scored", [True, False])
def test_whichever_rank_it_is(
    checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, scored: bool
) -> None:
    """And whatever the prompt wants: no rank begins the step."""
    asked: list[int] = []

    def room(group: Group, device: torch.device, size: int) -> None:
        if size:  # a start's own steps ask for nothing
            asked.append(size)
        much = size << 30 * group.rank if len(asked) <= 2 else size
        allocated(group, device, lambda: torch.empty(much, dtype=torch.uint8))

    def work(shard: LocalShard) -> list[int]:
        prompt = shard.admission(1, range(3, 23), prompt_logprobs=scored)
        [failed] = shard.run(admit=[prompt], chunk_slot=[1], chunk_length=[20])
        shard.start(0, [3, 4, 5])
        shard.release(0, 1)
        return [one.slot for one in failed.refused]

    monkeypatch.setattr(runner, "check_room", room)
    assert joined_ranks(checkpoint("llama2"), 2, work) == [1]


@pytest.mark.parametrize("part", ["sample", "scores"])
def test_what_rank_0_alone_has_no_memory_for(
    checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """The others get tokens that are none, and wait for nothing."""
    times = iter([False, True] if part == "sample" else [True])

    def failing(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*inputs: Any) -> Any:
            if next(times, False):
                raise torch.OutOfMemoryError("tried to allocate 2 GiB")
            return function(*inputs)

        return call

    def work(shard: LocalShard) -> tuple[list[Any], ...]:
        expected = [shard.start(0, [3, 4, 5]), *shard.decode([0], 3)[0]]
        shard.release(0)
        if shard.runner.sampling is not None and part == "sample":
            monkeypatch.setattr(
                shard.runner.sampling, "sample", failing(shard.runner.sampling.sample)
            )
        elif shard.runner.sampling is not None:
            monkeypatch.setattr(prompt_scores, "scores_of", failing(prompt_scores.scores_of))
        shard.start(0, [3, 4, 5])
        prompt = shard.admission(1, range(3, 23), prompt_logprobs=True, prompt_top_n=2)
        [lost] = shard.run(
            admit=[prompt], chunk_slot=[1], chunk_length=[20], decode=[0], decode_changed=True
        )
        shard.decode([0, 1], 2)
        shard.release(0, 1)
        again = [shard.start(0, [3, 4, 5]), *shard.decode([0], 3)[0]]
        return [(one.slot, one.kind) for one in lost.refused], expected, again

    refused, expected, again = joined_ranks(checkpoint("llama2"), 2, work)
    slots = [0, 1] if part == "sample" else [1]
    assert sorted(refused) == [(slot, OUT_OF_MEMORY) for slot in slots]
    assert again == expected


def test_what_says_that_memory_ran_out() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    with pytest.raises(MemoryError) as numpys:
        np.empty(1 << 60, np.uint8)
    assert is_out_of_memory(numpys.value)
    assert not is_out_of_memory(RuntimeError("CUDA error: out of bounds"))


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_start_takes_smaller_steps_where_memory_ends(tmp_path: Path, ranks: int) -> None:
    """F12: a shard may have little beside what it has loaded, and the largest matrix of a step of
    4,096 tokens alone takes twice that. Of two ranks one is as short, and both take the same."""
    model = make_checkpoint(
        tmp_path / "model", "llama2", max_position_embeddings=4096, intermediate_size=4096
    )
    with running_shards(model, tmp_path / "s", ranks) as shards:
        limit_memory(shards, 2 * SPARE, ranks - 1)
        sizes = {"max_prefill_tokens": 4096, "max_sequence_length": 4096, "max_slots": 2}
        warmed, *others = shards.warm_up(**sizes, max_batch_total_tokens=4096)
        assert 64 <= warmed.max_prefill_tokens < 4096
        assert all(one.max_prefill_tokens == warmed.max_prefill_tokens for one in others)
        said = shards.logs[-1].read_text()
        assert "a step of 4096 prompt tokens does not fit in memory, trying 2048" in said
        assert [len(tokens) for tokens in shards.generate([[5, 6, 7]], 4)] == [4]
