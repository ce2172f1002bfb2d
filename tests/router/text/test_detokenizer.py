"""The text that comes token by token is the text that the tokenizer gives for the whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders

from penstock_router.text.detokenizers.byte_level import ByteLevelDetokenizer
from penstock_router.text.detokenizers.sentencepiece import SentencePieceDetokenizer
from penstock_router.text.detokenizers.window import WindowDetokenizer
from penstock_router.text.library import TokenizerError
from penstock_router.text.token_table import token_table
from penstock_router.text.tokenizer import Tokenizer
from support.case_folders import sentencepiece, with_decoder, write
from support.small_text import KINDS, write_folder

TEXT = st.text(
    st.one_of(
        st.sampled_from("abc The capital of France  \n\t"),
        st.sampled_from("éßñ漢字日本語👩‍👩‍👧🇫🇷🏳️‍🌈"),
        st.characters(codec="utf-8"),
    ),
    max_size=30,
)


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    root: Path = tmp_path_factory.mktemp("tokenizers")
    return {kind: Tokenizer.load(write_folder(root / kind, make())) for kind, make in KINDS.items()}


def pieces(tokenizer: Tokenizer, ids: list[int], prompt: list[int]) -> list[str]:
    detokenizer = token_table(tokenizer).detokenizer(prompt)
    shown = []
    for token in ids:
        text = detokenizer.step(token)
        shown.append("" if token in tokenizer.special_ids else text)
    return [*shown, detokenizer.flush()]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("byte_level", ByteLevelDetokenizer),
        ("legacy", SentencePieceDetokenizer),
        ("first", SentencePieceDetokenizer),
        ("word_piece", WindowDetokenizer),
    ],
)
def test_kind_by_decoder(tokenizers: dict[str, Tokenizer], kind: str, expected: type) -> None:
    assert type(token_table(tokenizers[kind]).detokenizer([])) is expected


@pytest.mark.parametrize("kind", ["byte_level", "legacy", "first"])
@settings(max_examples=150, deadline=None)
@given(text=TEXT)
def test_text_survives(tokenizers: dict[str, Tokenizer], kind: str, text: str) -> None:
    tokenizer = tokenizers[kind]
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert "".join(pieces(tokenizer, ids, [])) == tokenizer.decode(ids)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_byte_level_tokens(tokenizers: dict[str, Tokenizer], data: st.DataObject) -> None:
    """Even tokens that are no text: half characters, special tokens, ids beyond the table."""
    tokenizer = tokenizers["byte_level"]
    ids = data.draw(st.lists(st.integers(0, 700), max_size=20))
    assert "".join(pieces(tokenizer, ids, [])) == tokenizer.decode(ids)


@pytest.mark.parametrize("kind", ["byte_level", "legacy", "first", "word_piece"])
@settings(max_examples=100, deadline=None)
@given(first=st.sampled_from(["The capital", "def decode", "Les"]), second=TEXT)
def test_continues_the_prompt(
    tokenizers: dict[str, Tokenizer], kind: str, first: str, second: str
) -> None:
    """What follows a prompt is the rest of the text of both, its first space included."""
    tokenizer = tokenizers[kind]
    prompt = tokenizer.encode(first, add_special_tokens=False)
    ids = tokenizer.encode(second, add_special_tokens=False)
    whole = tokenizer.decode(prompt + ids)
    assert "".join(pieces(tokenizer, ids, prompt)) == whole[len(tokenizer.decode(prompt)) :]


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_wrong_bytes_lose_nothing_else(
    tokenizers: dict[str, Tokenizer], data: st.DataObject
) -> None:
    """Byte tokens in any order: U+FFFD for what is wrong, and every piece of text stays."""
    tokenizer = tokenizers["legacy"]
    byte_ids = [tokenizer.encode(chr(0x1F600), False)[-1] - 0x80 + b for b in range(256)]
    word = tokenizer.encode("capital", False)
    choice = st.one_of(st.sampled_from(byte_ids), st.just(-1))
    ids: list[int] = []
    for token in data.draw(st.lists(choice, max_size=12)):
        ids += word if token < 0 else [token]
    text = "".join(pieces(tokenizer, ids, [5]))
    assert text.count("capital") == tokenizer.decode(ids).count("capital")
    runs_are_text = "\ufffd" not in tokenizer.decode(ids)
    if runs_are_text:
        assert text.lstrip(" ") == tokenizer.decode(ids).lstrip(" ")


@pytest.mark.parametrize("kind", ["byte_level", "legacy"])
def test_emoji_comes_with_its_last_token(tokenizers: dict[str, Tokenizer], kind: str) -> None:
    tokenizer = tokenizers[kind]
    prompt = tokenizer.encode("a", False)
    ids = tokenizer.encode("👍", False)[-4:]
    shown = pieces(tokenizer, ids, prompt)
    assert shown == ["", "", "", "👍", ""]


def test_half_a_character_at_the_end(tokenizers: dict[str, Tokenizer]) -> None:
    ids = tokenizers["byte_level"].encode("👍", False)
    assert pieces(tokenizers["byte_level"], ids[:-1], []) == ["", "", "", "\ufffd"]


def test_special_tokens_show_their_names(tokenizers: dict[str, Tokenizer]) -> None:
    for tokenizer in tokenizers.values():
        detokenizer = token_table(tokenizer).detokenizer([])
        for name, token in tokenizer.special_tokens.items():
            assert detokenizer.step(token) == name


REPLACE, BYTES, FUSE = decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()
STRIP = decoders.Strip(" ", 1, 0)
DECODERS = {
    "llama": (SentencePieceDetokenizer, [REPLACE, BYTES, FUSE, STRIP]),
    "gguf": (SentencePieceDetokenizer, [BYTES, FUSE, REPLACE, STRIP]),
    "gemma": (SentencePieceDetokenizer, [REPLACE, BYTES, FUSE]),
    "no bytes": (SentencePieceDetokenizer, [REPLACE, FUSE, STRIP]),
    "metaspace": (SentencePieceDetokenizer, [decoders.Metaspace()]),
    "metaspace first": (
        SentencePieceDetokenizer,
        [BYTES, decoders.Metaspace(prepend_scheme="first")],
    ),
    "metaspace never": (
        SentencePieceDetokenizer,
        [BYTES, decoders.Metaspace(prepend_scheme="never"), FUSE],
    ),
    "strip each": (WindowDetokenizer, [REPLACE, BYTES, STRIP]),
    "strip twice": (WindowDetokenizer, [REPLACE, BYTES, FUSE, STRIP, STRIP]),
    "suffix": (WindowDetokenizer, [decoders.BPEDecoder(suffix="e")]),
    "bytes and suffix": (WindowDetokenizer, [BYTES, FUSE, decoders.Replace("t", "T")]),
}


@pytest.mark.parametrize("name", DECODERS)
def test_every_decoder(tmp_path: Path, name: str) -> None:
    kind, parts = DECODERS[name]
    path = write(tmp_path, with_decoder(sentencepiece(), *parts))
    tokenizer = Tokenizer.load(path)
    assert type(token_table(tokenizer).detokenizer([])) is kind
    words = st.sampled_from(["the cat", " a", "é", "世界", "😀", "  ", "t", "x", "▁"])

    @settings(max_examples=80, deadline=None)
    @given(first=st.lists(words, max_size=4), second=st.lists(words, max_size=6))
    def whole(first: list[str], second: list[str]) -> None:
        prompt = tokenizer.encode("".join(first), False) if first else []
        ids = tokenizer.encode("".join(second), False) if second else []
        before, text = tokenizer.decode(prompt), tokenizer.decode(prompt + ids)
        assert "".join(pieces(tokenizer, ids, prompt)) == text[len(before) :]

    whole()


def test_a_decoder_that_fails(tmp_path: Path) -> None:
    """A panic of the library is no fault of the sequence, nor of the server's start."""
    twice = decoders.Strip(" ", 1, 1)
    tokenizer = Tokenizer.load(write(tmp_path, with_decoder(sentencepiece(), REPLACE, twice)))
    [space] = [i for i, spelling in tokenizer.vocabulary().items() if spelling == "▁"]
    with pytest.raises(TokenizerError):
        tokenizer.decode([space])
    ids = [*tokenizer.encode("a", False), space, space]
    assert pieces(tokenizer, ids, [])[0] == "a"
