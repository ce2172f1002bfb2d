"""On CUDA copies to the host are launched with a step and are there when its timer has ended: until
then what they write to holds anything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from penstock_shard.steps import results, scores
from penstock_shard.steps.results import StepTimer
from support.local_shard import LocalShard, load_model
from support.shard_driver import neutral


def outcomes(shard: LocalShard) -> list[Any]:
    """All that a step says of tokens, those of prompts and their neighbours included."""
    wanted = neutral(logprobs=True, top_n=3)
    prompts = [
        shard.admission(slot, range(3 + slot, 12), wanted, prompt_logprobs=True, prompt_top_n=n)
        for slot, n in ((0, 2), (1, 4), (2, 0))
    ]
    found = shard.run(
        admit=prompts, chunk_slot=[0, 1, 2], chunk_length=[9, 8, 7], decode_changed=True
    )
    found += shard.run(decode_changed=True, decode=[0, 1, 2], repeat=2)
    shard.release(0, 1, 2)
    for result in found:
        result.step = result.device_ns = 0
    return found


def test_nothing_is_read_before_it_is_there(
    checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = LocalShard(load_model(checkpoint("llama2")))
    expected = outcomes(shard)
    assert len(expected[0].prompt[1].top_token) == 7 * 4 * 4
    under_way: list[tuple[torch.Tensor, torch.Tensor]] = []

    def launch(values: torch.Tensor) -> torch.Tensor:
        host = torch.full_like(values, 77)
        under_way.append((host, values.clone()))
        return host

    wait = StepTimer.wait

    def arrive(timer: StepTimer) -> int:
        with torch.inference_mode():
            for host, values in under_way:
                host.copy_(values)
        under_way.clear()
        return wait(timer)

    monkeypatch.setattr(scores, "download", launch)
    monkeypatch.setattr(results, "download", launch)
    monkeypatch.setattr(StepTimer, "wait", arrive)
    assert outcomes(shard) == expected


@pytest.mark.gpu
def test_neighbours_of_a_prompts_tokens_on_a_gpu(checkpoint: Callable[[str], Path]) -> None:
    """They are those of the CPU."""
    here, there = (
        outcomes(LocalShard(load_model(checkpoint("llama2"), device=device)))
        for device in ("cpu", "cuda")
    )
    for one, other in zip(here[0].prompt, there[0].prompt, strict=True):
        assert one.top_token == other.top_token
        near = np.frombuffer(other.top_logprob, np.float32)
        assert np.frombuffer(one.top_logprob, np.float32) == pytest.approx(near, abs=1e-3)
