"""Lengths are drawn as they are written."""

from __future__ import annotations

import numpy as np
import pytest

from penstock.bench.lengths import Lengths


@pytest.mark.parametrize("text", ["512", "uniform:16:64", "lognormal:256:0.8:4096"])
def test_lengths_are_written_as_they_are_read(text: str) -> None:
    assert str(Lengths.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", "0", "uniform:1", "normal:1:2", "uniform:a:b", "1:2", "uniform:9:3", "nan", "inf"]
)
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
