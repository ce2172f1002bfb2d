from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path

import pytest
import tokenizers

from penstock_launcher.model import DEMO
from penstock_router.text import TextModel, eos_token_ids, library
from penstock_router.text.definition import read_definition
from penstock_router.text.lanes import HUGE, Lanes
from penstock_router.text.library import TooManyTokens
from penstock_router.text.tokenizer import PIECE, Tokenizer
from support.small_text import byte_level, write_folder


def test_missing_tokenizer_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="neither tokenizer.json nor .*save_pretrained"):
        TextModel.load(tmp_path, None, 1)


def test_broken_files_are_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, byte_level())
    (folder / "tokenizer_config.json").write_text("[1]")
    with pytest.raises(ValueError, match="tokenizer_config.json holds a JSON list"):
        TextModel.load(folder, None, 1)
    (folder / "tokenizer_config.json").write_text("{")
    with pytest.raises(ValueError, match="tokenizer_config.json is not valid JSON"):
        TextModel.load(folder, None, 1)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="tokenizer_config.json|cannot|can be read"):
        TextModel.load(folder, None, 1)


def test_raw_prompts_may_name_special_tokens(tmp_path: Path) -> None:
    model = TextModel.load(write_folder(tmp_path, byte_level()), None, 1)
    assert model.tokenizer.encode("<|im_start|>x")[0] == 3


@pytest.mark.parametrize(
    ("generation", "config", "expected"),
    [
        ({"eos_token_id": [2, 4]}, {"eos_token_id": 9}, {2, 4}),
        ({"eos_token_id": 3}, {"eos_token_id": 9}, {2, 3}),
        ({}, {"eos_token_id": 9}, {2, 9}),
        ({}, {"text_config": {"eos_token_id": [7]}}, {2, 7}),
        ({"eos_token_id": [-1, None, True]}, {}, {2}),
        (None, None, {2}),
    ],
)
def test_eos(
    tmp_path: Path, generation: dict | None, config: dict | None, expected: set[int]
) -> None:
    """The tokenizer's own EOS (2) is always among them."""
    folder = write_folder(tmp_path, byte_level())
    for name, value in (("generation_config.json", generation), ("config.json", config)):
        (folder / name).unlink()
        if value is not None:
            (folder / name).write_text(json.dumps(value))
    assert eos_token_ids(folder) == expected


@pytest.mark.parametrize("names", [{"eos_token": "a"}, 5])
def test_names_are_the_configurations_to_give(tmp_path: Path, names: object) -> None:
    """tokenizer.json has no such field; only our converters make one."""
    folder = write_folder(tmp_path, byte_level())
    path = folder / "tokenizer.json"
    (folder / "tokenizer_config.json").write_text('{"bos_token": "<s>"}')
    path.write_text(json.dumps(json.loads(path.read_text()) | {"names": names}))
    assert read_definition(folder).names == {"bos_token": "<s>"}


@pytest.mark.parametrize("piece", ["[", "<|", "a b "])
def test_what_looks_too_long_is_counted_piece_by_piece(
    piece: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No piece is long, whatever the text is, and what fits is never refused so."""
    tokenizer = Tokenizer.load(DEMO)
    monkeypatch.setattr(tokenizer.bound, "_known", False)  # as of tokenizers that drop characters
    seen: list[int] = []
    encode = library.encode

    def counting(made: tokenizers.Tokenizer, text: str, *rest: bool, **more: bool) -> object:
        seen.append(len(text))
        return encode(made, text, *rest, **more)

    monkeypatch.setattr(library, "encode", counting)
    text = piece * (1_900_000 // len(piece))
    with pytest.raises(TooManyTokens, match="at least"):
        tokenizer.check_length(text, 2047)
    assert seen and max(seen) <= PIECE and sum(seen) < len(text) / 5
    short = text[: 3 * PIECE]
    tokenizer.check_length(short, len(encode(tokenizer._tokenizer, short, False)))


async def test_nobody_waits_for_a_text_that_is_much_longer() -> None:
    lanes = Lanes(1)
    release = threading.Event()
    waiting = [asyncio.create_task(lanes.run(release.wait, HUGE + place)) for place in (1, 2)]
    assert await lanes.run(lambda: 7) == 7
    assert await lanes.run(lambda: 8, HUGE) == 8
    assert not any(task.done() for task in waiting)
    release.set()
    assert await asyncio.gather(*waiting) == [True, True]
    lanes.close()


async def test_no_text_waits_for_a_grammar() -> None:
    lanes = Lanes(1)
    release = threading.Event()
    waiting = [asyncio.create_task(lanes.aside(release.wait)) for _ in range(2)]
    await asyncio.sleep(0)
    assert await lanes.run(lambda: 7) == 7
    assert not any(task.done() for task in waiting)
    release.set()
    assert await asyncio.gather(*waiting) == [True, True]
    lanes.close()
