"""Cases are drawn as they say, and the same for the same seed."""

from __future__ import annotations

import dataclasses

from benchmarks.cases import CASES, Case

from penstock.bench.lengths import Lengths


def test_prompts_share_their_group_s_prefix_and_nothing_else() -> None:
    case = Case("x", 2, 6, Lengths.parse("12"), Lengths.parse("4"), 8, prefix_groups=2)
    prompts = case.draw(1, (100, 10_000))
    assert [len(p.ids) for p in prompts] == [12] * 6
    assert {p.output for p in prompts} == {4}
    prefixes = [tuple(p.ids[:8]) for p in prompts]
    assert prefixes[0::2] == [prefixes[0]] * 3 and prefixes[1::2] == [prefixes[1]] * 3
    assert prefixes[0] != prefixes[1]
    assert len({tuple(p.ids[8:]) for p in prompts}) == 6
    assert all(100 <= token < 10_000 for p in prompts for token in p.ids)


def test_seed_and_name_choose_the_prompts() -> None:
    case = CASES["c8"]
    again = case.draw(3, (10, 1000))
    assert again == case.draw(3, (10, 1000))
    assert again != case.draw(4, (10, 1000))
    assert again != dataclasses.replace(case, name="other").draw(3, (10, 1000))
