"""Calls of every format, whole and in pieces."""

import json

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_router.tools.events import Arguments, CallEnded, CallStarted, Text, joined
from penstock_router.tools.formats import FORMATS, NAMED
from support.tool_samples import FULL, MARKERS, SAMPLES, TOOLS, Sample, dialect, events, parse


def tokens_of(sample: Sample) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for literal in NAMED[sample.format].strings:
        found |= dict.fromkeys(MARKERS.findall(literal))
    return tuple(found)


def plain(reply):
    return (reply.text, reply.reasoning, [(c.name, c.arguments) for c in reply.calls])


@pytest.mark.parametrize("as_tokens", [False, True])
@pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: s.format)
def test_a_sample_comes_to_its_calls(sample, as_tokens):
    chosen = dialect(sample.format, tokens_of(sample) if as_tokens else ())
    reply = parse(chosen, [chosen.alphabet.encoded(sample.text)])
    assert reply.text == sample.before
    assert [call.name for call in reply.calls] == ["weather", "get_time"][: 1 + sample.second]
    assert json.loads(reply.calls[0].arguments) == FULL
    for call in reply.calls:
        jsonschema.validate(json.loads(call.arguments), TOOLS[call.name])
    assert len({call.id for call in reply.calls}) == len(reply.calls)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_every_split_comes_to_the_same(data):
    sample = data.draw(st.sampled_from(SAMPLES))
    as_tokens = data.draw(st.booleans())
    chosen = dialect(sample.format, tokens_of(sample) if as_tokens else ())
    text = chosen.alphabet.encoded(sample.text)
    cut = data.draw(st.integers(0, len(text)))  # a sequence may end anywhere
    text = text[: cut or None]
    places = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=len(text))))
    pieces = [text[i:j] for i, j in zip([0, *places], [*places, len(text)], strict=True)]
    assert plain(parse(chosen, pieces)) == plain(parse(chosen, [text]))
    assert plain(parse(chosen, list(text))) == plain(parse(chosen, [text]))


@pytest.mark.full
@pytest.mark.parametrize("as_tokens", [False, True])
@pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: s.format)
def test_every_place_may_be_between_two_pieces(sample, as_tokens):
    """And every sequence may end there."""
    chosen = dialect(sample.format, tokens_of(sample) if as_tokens else ())
    text = chosen.alphabet.encoded(sample.text)
    whole = plain(parse(chosen, [text]))
    for place in range(1, len(text)):
        assert plain(parse(chosen, [text[:place], text[place:]])) == whole
        assert plain(parse(chosen, list(text[:place]))) == plain(parse(chosen, [text[:place]]))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_garbage_comes_to_text(data):
    """Whatever a model writes, nothing is raised and the events are well formed."""
    row = data.draw(st.sampled_from(FORMATS))
    words = [*row.strings, row.bare, "weather", '"name"', ":", '{"', "}", "[", "]", "1", '"', "\\"]
    text = "".join(data.draw(st.lists(st.sampled_from(words), max_size=20)))
    chosen = dialect(row.name)
    running = None
    for event in events(chosen, [text]):
        match event:
            case CallStarted(index=index):
                running = index
            case Arguments(index=index) | CallEnded(index=index):
                assert index == running
            case Text(text=piece):
                assert piece
    assert plain(parse(chosen, list(text))) == plain(parse(chosen, [text]))


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: s.format)
def test_an_unknown_name_is_text(sample):
    chosen = dialect(sample.format)
    text = sample.text.replace("weather", "unknown").replace("get_time", "unknown")
    reply = parse(chosen, [text])
    assert not reply.calls
    assert "unknown" in reply.text


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: s.format)
def test_arguments_grow_as_a_prefix(sample):
    """Each piece of the arguments comes as soon as it is there."""
    chosen = dialect(sample.format)
    found = events(chosen, list(sample.text))
    pieces = [event.json for event in found if isinstance(event, Arguments) and not event.index]
    assert len(pieces) > 10
    assert json.loads("".join(pieces)) == FULL


def test_without_tools_nothing_is_a_call():
    chosen = dialect("hermes")
    text = '<tool_call>\n{"name": "weather", "arguments": {}}\n</tool_call>'
    reply = joined(events(chosen, [text], tools={}))
    assert reply.calls == ()
    assert reply.text == text


def test_a_marker_that_is_a_token_is_not_spelt():
    chosen = dialect("hermes", ("<tool_call>", "</tool_call>"))
    text = '<tool_call>\n{"name": "weather", "arguments": {}}\n</tool_call>'
    assert parse(chosen, [text]).text == text
    assert parse(chosen, [chosen.alphabet.encoded(text)]).calls[0].name == "weather"
