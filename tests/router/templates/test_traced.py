"""A traced string behaves as `str`, and knows who wrote what is left of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_router.templates.traced import (
    CLIENT,
    END,
    LAST,
    TEMPLATE,
    Traced,
    concat,
    origins,
    written,
)

# The client's characters and the template's, so that each tells where it comes from.
LETTERS = {"a": CLIENT, "b": CLIENT, "x": TEMPLATE, "y": TEMPLATE, "X": TEMPLATE, "A": CLIENT}
BLANKS = {" ": CLIENT, "\t": TEMPLATE, "\n": TEMPLATE, "\r": CLIENT}
ORIGIN = LETTERS | BLANKS
texts = st.text(st.sampled_from("abxyXA \t\n\r"), max_size=12)
some = st.text(st.sampled_from("abxy \n"), min_size=1, max_size=2)
counts = st.integers(-1, 3)


def traced(text: str) -> Traced:
    return Traced(text, bytes(ORIGIN[c] for c in text))


def check(result: Any, plain: Any) -> None:
    """Equal, and each character comes from where such characters come from."""
    assert result == plain and type(plain) in (str, list, tuple)
    for piece in [result] if isinstance(result, str) else result:
        assert isinstance(piece, Traced)
        assert origins(piece) == bytes(ORIGIN[c] for c in piece)


@given(texts, some, counts)
def test_pieces(text: str, sep: str, count: int) -> None:
    for method, *arguments in (
        *(("split",), ("split", None, count), ("split", sep), ("split", sep, count)),
        *(("rsplit",), ("rsplit", None, count), ("rsplit", sep), ("rsplit", sep, count)),
        *(("splitlines",), ("splitlines", True), ("partition", sep), ("rpartition", sep)),
        *(("strip",), ("lstrip",), ("rstrip",), ("strip", sep), ("lstrip", sep), ("rstrip", sep)),
        *(("removeprefix", sep), ("removesuffix", sep)),
    ):
        plain = getattr(text, method)(*arguments)
        check(getattr(traced(text), method)(*arguments), plain)


@given(texts, st.integers(-14, 14), st.integers(-14, 14), st.sampled_from([1, 2, -1, -3]))
def test_slices(text: str, start: int, stop: int, step: int) -> None:
    check(traced(text)[start:stop:step], text[start:stop:step])
    check(list(traced(text)), list(text))
    check(list(reversed(traced(text))), list(reversed(text)))
    if -len(text) <= start < len(text):
        check(traced(text)[start], text[start])


@given(texts, texts, st.integers(0, 3))
def test_sums(one: str, other: str, count: int) -> None:
    check(traced(one) + traced(other), one + other)
    check(traced(one) * count, one * count)
    check(count * traced(one), count * one)
    check(traced(one).join([traced(other)] * count), one.join([other] * count))
    client = other.replace("x", "a").replace("y", "b").replace("X", "A").replace("\t", " ")
    client = client.replace("\n", " ")
    check(traced(one) + client, one + client)
    check(client + traced(one), client + one)
    check(traced(one).join([client] * count), one.join([client] * count))


@given(texts, some, texts, counts)
def test_replace(text: str, old: str, new: str, count: int) -> None:
    """What replaces the client's is the client's."""
    result = traced(text).replace(old, traced(new), count)
    assert result == text.replace(old, new, count)
    from_template = all(ORIGIN[c] == TEMPLATE for c in old)
    marker = Traced("!" * len(new), origins(traced(new)))
    for character, origin in zip(
        traced(text).replace(old, marker, count),
        origins(traced(text).replace(old, marker, count)),
        strict=True,
    ):
        if character != "!":
            assert origin == ORIGIN[character]
        elif not from_template:
            assert origin == CLIENT
    if from_template:
        check(result, text.replace(old, new, count))


def test_the_end_of_a_message_outlives_a_replacement() -> None:
    message = written("a\r", LAST) + written("\n", END)
    assert origins(message.replace("\r\n", written("\n", TEMPLATE))) == bytes([LAST, END])


def test_letters() -> None:
    for method in ("upper", "lower", "title", "capitalize"):
        assert origins(getattr(traced("axbY".replace("Y", "y")), method)()) == bytes([0, 1, 0, 1])
        longer = getattr(written("ßx", TEMPLATE), method)()
        assert longer == getattr("ßx", method)()
        assert origins(longer) in (b"\1\1", bytes(len(longer)))


@pytest.mark.parametrize(
    "method", ["casefold", "swapcase", "expandtabs", "zfill", "ljust", "rjust", "center"]
)
def test_what_is_not_traced_is_the_clients(method: str) -> None:
    arguments = (9,) if method in ("zfill", "ljust", "rjust", "center") else ()
    result = getattr(written("x\tY", TEMPLATE), method)(*arguments)
    assert result == getattr("x\tY", method)(*arguments)
    assert not any(origins(result))


def test_what_templates_ask_of_strings() -> None:
    text = traced("ax")
    assert (
        text == "ax" and {"ax": 1}[text] == 1 and {text: 1}["ax"] == 1 and hash(text) == hash("ax")
    )
    assert "x" in text and text.startswith("a") and text < "b" and isinstance(text, str)
    assert str(text) is text and f"{text:>3}" == " ax" and repr(text) == "'ax'"


@pytest.mark.parametrize("other", [None, 1, [], object()])
def test_errors_are_those_of_strings(other: Any) -> None:
    for add in (lambda s: s + other, lambda s: other + s):
        with pytest.raises(TypeError) as plain:
            add("x")
        with pytest.raises(TypeError) as ours:
            add(traced("x"))
        assert str(ours.value) == str(plain.value)


def test_concat() -> None:
    both = concat(["a", written("b", TEMPLATE), "", "c"])
    assert both == "abc" and origins(both) == b"\0\1\0"
    assert concat([]) == "" and origins(concat(["a"])) == b"\0"
