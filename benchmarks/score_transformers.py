"""The other side of `score_suffixes`: one process that scores suffixes with transformers.

stdin   one line of JSON: model, device, dtype, batch (sequences), patience (s), groups (prefix
        and suffixes); the first group warms up
stdout  one line of JSON: for each way, the seconds and the sums of each group
"""

from __future__ import annotations

import copy
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from benchmarks.machine import wait_until_quiet
from torch import Tensor
from transformers import AutoModelForCausalLM, DynamicCache

Group = dict[str, Any]  # `benchmarks.score_suffixes.Group` as JSON


def padded(rows: list[list[int]], device: str) -> Tensor:
    """[rows, longest] int64, filled up behind the end: causal attention never sees it."""
    width = max(map(len, rows))
    return torch.tensor([row + [0] * (width - len(row)) for row in rows], device=device)


def sums(logits: Tensor, suffixes: list[list[int]], device: str) -> list[float]:
    """Summed log-probabilities. logits: [suffixes, longest, vocabulary], each of the place before a
    token of the suffix."""
    targets = padded(suffixes, device)
    scores = logits.float().log_softmax(-1).gather(2, targets.unsqueeze(2)).squeeze(2)
    return [float(row[: len(suffix)].sum()) for row, suffix in zip(scores, suffixes, strict=True)]


def batches(group: Group, size: int) -> Iterator[list[list[int]]]:
    """The suffixes of a group, so many at a time."""
    for start in range(0, len(group["suffixes"]), size):
        yield group["suffixes"][start : start + size]


def whole(model: Any, group: Group, size: int, device: str) -> list[float]:
    """Every suffix with its prefix."""
    prefix, scores = group["prefix"], []
    for suffixes in batches(group, size):
        ids = padded([prefix + suffix for suffix in suffixes], device)
        longest = max(map(len, suffixes))
        logits = model(ids, logits_to_keep=longest + 1, use_cache=False).logits
        scores += sums(logits[:, :-1], suffixes, device)
    return scores


def behind_prefix(model: Any, group: Group, size: int, device: str) -> list[float]:
    """The prefix once, its keys and values repeated for every suffix."""
    prefix = torch.tensor([group["prefix"]], device=device)
    begun = model(prefix, past_key_values=DynamicCache(), logits_to_keep=1)
    scores = []
    for suffixes in batches(group, size):
        cache = copy.deepcopy(begun.past_key_values)
        cache.batch_repeat_interleave(len(suffixes))
        logits = model(padded(suffixes, device), past_key_values=cache).logits
        first = begun.logits.expand(len(suffixes), 1, -1)
        scores += sums(torch.cat((first, logits[:, :-1]), dim=1), suffixes, device)
    return scores


WAYS: dict[str, Callable[[Any, Group, int, str], list[float]]] = {
    "transformers": whole,
    "transformers, prefix": behind_prefix,
}


@torch.inference_mode()
def main() -> None:
    task = json.loads(sys.stdin.readline())
    device, size = task["device"], task["batch"]
    model = AutoModelForCausalLM.from_pretrained(
        task["model"], dtype=getattr(torch, task["dtype"]), attn_implementation="sdpa"
    )
    model = model.to(device).eval()
    warm, *groups = task["groups"]
    measured = []
    for way, score in WAYS.items():
        score(model, warm, size, device)
        wait_until_quiet(patience=task["patience"])
        started = time.monotonic()
        scores = [score(model, group, size, device) for group in groups]
        seconds = time.monotonic() - started
        measured.append({"way": way, "seconds": seconds, "scores": scores})
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
