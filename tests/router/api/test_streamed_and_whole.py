"""Whatever a model generates, streams say what whole answers say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_router.api.logprobs import ChatLogprobs, CompletionLogprobs
from penstock_router.api.openai_answer import collected_logprobs
from penstock_router.api.openai_stream import CHAT, COMPLETION
from penstock_router.text import TextModel
from support.answers import Told, choices, collected, generate_events
from support.small_text import KINDS, write_folder

EXACT = ["byte_level", "word_piece"]
PROMPT = (5,)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TextModel]:
    root: Path = tmp_path_factory.mktemp("models")
    return {
        kind: TextModel.load(write_folder(root / kind, make()), None, 1)
        for kind, make in KINDS.items()
    }


@st.composite
def tokens(draw: st.DrawFn, model: TextModel) -> list[int]:
    """Text and tokens at random: whole words, halves of characters, special tokens, none at all."""
    size = max(model.tokenizer.vocabulary()) + 8
    text = st.text(st.sampled_from("abc The\n é漢👍🇫🇷"), max_size=8)
    run = st.one_of(
        st.lists(st.integers(0, size), max_size=4),
        text.map(lambda piece: model.tokenizer.encode(piece, False)),
        text.map(lambda piece: model.tokenizer.encode(piece, False)[:-1]),
        st.sampled_from(sorted(model.tokenizer.special_ids)).map(lambda token: [token]),
    )
    return [token for part in draw(st.lists(run, max_size=6)) for token in part]


def told(ids: list[int]) -> list[Told]:
    """With log-probabilities that tell positions and tokens apart."""
    return [
        (token, -0.5 - place, [(token, -0.5 - place), ((token * 7 + place) % 300, -1.25 - place)])
        for place, token in enumerate(ids)
    ]


def text_of(model: TextModel, ids: list[int]) -> str:
    """By the detokeniser alone."""
    detokenizer = model.detokenizer(PROMPT)
    special = model.tokenizer.special_ids
    pieces = [(token, detokenizer.step(token)) for token in ids]
    return "".join(p for token, p in pieces if token not in special) + detokenizer.flush()


def draw_case(model: TextModel, data: st.DataObject) -> tuple[list[Told], list[str]]:
    ids = data.draw(tokens(model))
    text = text_of(model, ids)
    places = st.integers(0, max(len(text) - 1, 0))
    inside = st.tuples(places, st.integers(1, 5)).map(lambda t: text[t[0] : sum(t)] or "zz")
    stops = data.draw(
        st.lists(st.one_of(inside, st.sampled_from(["zzz", "a\n", "\ufffd"])), max_size=3)
    )
    return told(ids), stops


def cut(text: str, stops: list[str], keep: bool) -> str:
    """The text to the first end of a stop sequence, by trying every place."""
    for end in range(len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: end if keep else end - max(map(len, found))]
    return text


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_generate_stream(models: dict[str, TextModel], kind: str, data: st.DataObject) -> None:
    """Text, tokens and stream are one: the texts of tokens that are not special join to it."""
    model = models[kind]
    generated, stops = draw_case(model, data)
    whole = collected(model, generated, stop=stops)
    events = generate_events(model, generated, stops)
    special = model.tokenizer.special_ids
    rows = list(zip(whole.ids, whole.closed_texts, strict=True))
    assert "".join(text for token, text in rows if token not in special) == whole.text
    shown = [event["token"] for event in events]
    if not whole.ids:
        assert shown == [{"id": 0, "text": "", "logprob": None, "special": True}]
    else:
        assert [(token["id"], token["text"]) for token in shown] == rows
        assert [token["special"] for token in shown] == [i in special for i in whole.ids]
    assert [event["index"] for event in events] == list(range(1, len(events) + 1))
    assert [event["generated_text"] for event in events[:-1]] == [None] * (len(events) - 1)
    assert events[-1]["generated_text"] == whole.text
    if not any(stop in model.tokenizer.special_tokens for stop in stops):
        assert whole.text == cut(text_of(model, [t[0] for t in generated]), stops, keep=True)


@pytest.mark.parametrize("shape", [CHAT, COMPLETION], ids=["chat", "completion"])
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_choice_stream(
    models: dict[str, TextModel], kind: str, shape: Any, data: st.DataObject
) -> None:
    model = models[kind]
    logprobs: Any = ChatLogprobs if shape is CHAT else CompletionLogprobs
    generated, stops = draw_case(model, data)
    whole = collected(model, generated, stop=stops, keep=False)
    streamed = choices(model, generated, shape, logprobs, stops)
    texts = [c["delta"]["content"] if shape is CHAT else c["text"] for c in streamed]
    assert "".join(texts) == whole.text
    assert whole.text == cut(text_of(model, [t[0] for t in generated]), stops, keep=False)
    if shape is CHAT:
        assert all(choice["delta"]["role"] == "assistant" for choice in streamed)
    assert [c["finish_reason"] for c in streamed[:-1]] == [None] * (len(streamed) - 1)
    parts = [choice["logprobs"] for choice in streamed if choice["logprobs"]]
    expected = collected_logprobs(whole, logprobs(model))
    assert {name: sum((part[name] for part in parts), []) for name in expected} == expected


@pytest.mark.parametrize("kind", EXACT)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_text_is_that_of_the_tokenizer(
    models: dict[str, TextModel], kind: str, data: st.DataObject
) -> None:
    model = models[kind]
    ids = data.draw(tokens(model))
    decode = model.tokenizer.decode
    whole = decode([*PROMPT, *ids])[len(decode(list(PROMPT))) :]
    assert collected(model, told(ids)).text == whole


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_offsets_are_where_texts_begin(
    models: dict[str, TextModel], kind: str, data: st.DataObject
) -> None:
    """A token that is whole characters stands at its offset; the first one at the start."""
    model = models[kind]
    generated, _ = draw_case(model, data)
    whole = collected(model, generated)
    shown = collected_logprobs(whole, CompletionLogprobs(model, 10, everything=True))
    assert len(shown["tokens"]) == len(whole.ids)
    offsets = shown["text_offset"]
    assert offsets == sorted(offsets)
    special = model.tokenizer.special_ids
    for token, own, text, offset in zip(
        whole.ids, shown["tokens"], whole.texts, offsets, strict=True
    ):
        if token not in special and text.endswith(own) and "\ufffd" not in text:
            assert whole.text[offset - 10 :].startswith(own)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_no_likely_token_is_lost(
    models: dict[str, TextModel], kind: str, data: st.DataObject
) -> None:
    """N entries, or N + 1 with the token itself, each with its own value."""
    model = models[kind]
    likely = data.draw(st.lists(st.integers(0, 300), unique=True, max_size=8))
    top = [(token, -1.0 - place / 8) for place, token in enumerate(likely)]
    own = data.draw(st.integers(0, 300))
    value = dict(top).get(own, -9.0)
    logprobs = CompletionLogprobs(model, everything=True)
    logprobs.add(own, "", value, top)
    shown = logprobs.take()
    [named] = shown["top_logprobs"]
    assert named[shown["tokens"][0]] == shown["token_logprobs"][0] == value
    assert sorted(named.values()) == sorted({**dict(top), own: value}.values())
    for token, expected in top:
        name = f"token_id:{token}"
        assert named[name if name in named else model.token_text(token)] is not None
        if name in named:
            assert named[name] == expected
