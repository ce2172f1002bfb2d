"""Cases are drawn as they say, and the same for the same seed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from benchmarks.cases import CASES, Case, Lengths, draw_prompts


@pytest.mark.parametrize("text", ["512", "uniform:16:64", "lognormal:256:0.8:4096"])
def test_lengths_are_written_as_they_are_read(text: str) -> None:
    assert str(Lengths.parse(text)) == text


@pytest.mark.parametrize("text", ["", "0", "uniform:1", "normal:1:2", "uniform:a:b", "1:2"])
def test_wrong_lengths_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected N, uniform:LOW:HIGH"):
        Lengths.parse(text)


def test_drawn_lengths_follow_their_distribution() -> None:
    rng = np.random.default_rng(0)
    assert set(Lengths.parse("7").draw(rng, 5)) == {7}
    uniform = Lengths.parse("uniform:3:5").draw(rng, 1000)
    assert set(uniform) == {3, 4, 5}
    skewed = Lengths.parse("lognormal:100:1:500").draw(rng, 4000)
    assert min(skewed) >= 1 and max(skewed) == 500
    assert 90 < np.median(skewed) < 110


def test_prompts_share_their_group_s_prefix_and_nothing_else() -> None:
    case = Case("x", 2, 6, Lengths.parse("12"), Lengths.parse("4"), 8, prefix_groups=2)
    prompts = draw_prompts(case, 1, (100, 10_000))
    assert [len(p.tokens) for p in prompts] == [12] * 6
    assert {p.output for p in prompts} == {4}
    prefixes = [tuple(p.tokens[:8]) for p in prompts]
    assert prefixes[0::2] == [prefixes[0]] * 3 and prefixes[1::2] == [prefixes[1]] * 3
    assert prefixes[0] != prefixes[1]
    assert len({tuple(p.tokens[8:]) for p in prompts}) == 6
    assert all(100 <= token < 10_000 for p in prompts for token in p.tokens)


def test_seed_and_name_choose_the_prompts() -> None:
    case = CASES["c8"]
    again = draw_prompts(case, 3, (10, 1000))
    assert again == draw_prompts(case, 3, (10, 1000))
    assert again != draw_prompts(case, 4, (10, 1000))
    assert again != draw_prompts(dataclasses.replace(case, name="other"), 3, (10, 1000))
