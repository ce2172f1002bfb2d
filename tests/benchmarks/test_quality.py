"""The table of formats: its corpus, and a row of it from a model that is there."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer

from benchmarks import quality
from penstock_shard.weights.quantize import read_sequences


def test_text_is_the_same_every_time_and_held_out() -> None:
    one, other = (quality.corpus(seed, 5) for seed in (quality.HELD_OUT_SEED, 0))
    assert one == quality.corpus(quality.HELD_OUT_SEED, 5) != other
    assert len(quality.questions()) == 194


@pytest.mark.full
def test_the_demo_model_knows_its_capitals_in_half_a_byte(tmp_path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(quality.corpus(quality.HELD_OUT_SEED, 60), encoding="utf-8")
    sequences = read_sequences(text, quality.DEMO / "tokenizer.json", 2, 256)
    (dense, size), (coded, less) = (
        quality.loaded(quality.DEMO, how) for how in (None, "bitsandbytes-nf4")
    )
    assert less < 0.5 * size
    perplexity = [quality.scores(decoder, sequences)[0] for decoder in (dense, coded)]
    assert perplexity[0] < perplexity[1] < 1.2 * perplexity[0]
    tokenizer = Tokenizer.from_file(str(quality.DEMO / "tokenizer.json"))
    assert quality.right_answers(coded, tokenizer) > 0.9


def test_the_table_is_markdown() -> None:
    line = quality.Line("nf4", "`--quantize`", 4.43, 7.0604, 0.9178, 1.0)
    assert quality.markdown([line]).splitlines()[-1] == (
        "| nf4 | `--quantize` | 4.4 | 7.060 | 91.8% | 100.0% |"
    )
