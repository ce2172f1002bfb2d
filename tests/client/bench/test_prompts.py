"""Prompts of files, of words and of a tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from penstock.bench.datasets import sharegpt
from penstock.bench.lengths import Lengths
from penstock.bench.prompts import RandomPrompts, as_text, as_words
from penstock.bench.tokenizer import load_tokenizer

DEMO = Path(__file__).parents[3] / "launcher" / "penstock_launcher" / "demo_model"
FOUR = Lengths("fixed", (4.0,))


def conversations() -> list[object]:
    question, answer = "What is the capital of France? " * 4, "Paris is the capital of France."
    return [
        {"conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]},
        {"messages": [{"role": "user", "content": question + "Say why."}, {"content": answer}]},
        {"prompt": question + "Really?", "output": answer},
        {"conversations": []},
        {"conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "."}]},
        {"conversations": [{"value": 3}, 4]},
        5,
    ]


@pytest.mark.parametrize("lines", [False, True])
def test_sharegpt(tmp_path: Path, lines: bool) -> None:
    file = tmp_path / "share.json"
    entries = conversations()
    file.write_text("\n".join(map(json.dumps, entries)) if lines else json.dumps(entries))
    drawn = sharegpt(file, 5, 1)
    assert len(drawn) == 5 and len({p.content for p in drawn}) == 3
    assert {p.output for p in drawn} == {8}  # 31 characters, four a token
    assert drawn == sharegpt(file, 5, 1)
    assert {p.output for p in sharegpt(file, 3, 1, output=FOUR)} == {4}
    counted = sharegpt(file, 3, 1, tokens=lambda text: len(text.split()))
    assert {p.output for p in counted} == {6}


@pytest.mark.parametrize("text", ["[]", "{}", '["a"]'])
def test_files_without_a_conversation(tmp_path: Path, text: str) -> None:
    (tmp_path / "a").write_text(text)
    with pytest.raises(ValueError, match="no conversation"):
        sharegpt(tmp_path / "a", 1, 1)
    (tmp_path / "a").write_text("{no")
    with pytest.raises(ValueError, match="neither JSON nor JSON lines"):
        sharegpt(tmp_path / "a", 1, 1)


def test_words_come_to_about_as_many_tokens() -> None:
    ids = list(range(100, 160))
    assert len(as_words(ids).split()) == 60 and len(as_words(ids, 3.0).split()) == 20
    assert as_words(ids + [5], 2.0).startswith(as_words(ids[:40], 2.0))  # a prefix stays shared


def test_text_of_a_tokenizer_is_read_as_so_many_tokens() -> None:
    tokenizer = load_tokenizer(str(DEMO))
    prompts = RandomPrompts(count=8, prompt=Lengths("fixed", (50.0,)), output=FOUR)
    sizes = []
    for prompt in prompts.draw(3, (300, 4000)):
        text = as_text(prompt.ids, tokenizer.decode, lambda t: tokenizer.encode(t).ids)
        sizes.append(len(tokenizer.encode(text).ids))
    assert max(sizes) <= 51 and min(sizes) >= 45
    with pytest.raises(ValueError, match="--tokenizer"):
        load_tokenizer(str(DEMO.parent))
