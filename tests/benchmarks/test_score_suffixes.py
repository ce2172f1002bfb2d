"""What the scoring benchmark draws and how it judges; both sides' arithmetic on a small model."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch
from benchmarks.score_suffixes import Measured, disagreements, draw_groups
from benchmarks.score_transformers import behind_prefix, whole
from transformers import AutoModelForCausalLM

import penstock_launcher

SIZES = argparse.Namespace(groups=3, prefix=9, suffixes=5, suffix=4, seed=1)


def test_groups_share_what_they_should() -> None:
    groups = draw_groups(SIZES, 4096)
    assert len(groups) == 3 and groups == draw_groups(SIZES, 4096)
    assert len({tuple(group.prefix) for group in groups}) == 3
    for group in groups:
        assert len(group.prefix) == 9 and len(group.suffixes) == 5
        assert len({tuple(suffix[:2]) for suffix in group.suffixes}) == 1
        assert all(4 <= len(suffix) <= 6 for suffix in group.suffixes)


def test_another_choice_is_counted_unless_it_is_as_good() -> None:
    first = Measured("a", 2.0, [[-1.0, -2.0], [-1.0, -1.01], [-1.0, -3.0]])
    other = Measured("b", 1.0, [[-1.0, -2.0], [-1.02, -1.01], [-3.0, -1.0]])
    assert disagreements([first, other]) == 1
    assert disagreements([first, first]) == 0
    assert first.rate == 3.0


def test_both_ways_of_transformers_score_alike() -> None:
    folder = Path(penstock_launcher.__file__).parent / "demo_model"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    group = draw_groups(SIZES, 4096)[0]
    task = {"prefix": group.prefix, "suffixes": group.suffixes}
    with torch.inference_mode():
        one, other = (way(model, task, 2, "cpu") for way in (whole, behind_prefix))
        row = group.prefix + group.suffixes[1]
        scores = model(torch.tensor([row])).logits[0].log_softmax(-1)
    places = range(len(group.prefix), len(row))
    assert one == pytest.approx(other, abs=1e-3)
    assert one[1] == pytest.approx(sum(float(scores[p - 1, row[p]]) for p in places), abs=1e-3)
