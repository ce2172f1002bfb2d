"""What transformers generates does not depend on what somebody guesses."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.checkpoints import make_checkpoint
from support.reference import ReferenceModel

TEXT, COUNT = "Water runs through steel pipes into the penstock", 20


@pytest.mark.parametrize("family", ["mistral", "phi3_long"])  # with a window; not at once
def test_guesses(tmp_path: Path, family: str) -> None:
    reference = ReferenceModel(make_checkpoint(tmp_path / "model", family))
    alone = reference.generate(TEXT, COUNT)
    right, other = alone.tokens, (alone.tokens[9] + 1) % 300
    for guess in (right, [*right[:9], other, *right[10:]], right[:-1]):
        found = reference.generate(TEXT, COUNT, guess)
        assert found.tokens == alone.tokens
        assert found.logprobs == pytest.approx(alone.logprobs, abs=1e-4)
        assert found.prompt_logprobs == pytest.approx(alone.prompt_logprobs, abs=1e-4)
