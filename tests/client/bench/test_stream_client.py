"""Recorded reads come apart into the same events, wherever the network cut them."""

from __future__ import annotations

from penstock.bench.stream_client import Exchange

EVENTS = [b'{"a": 1}', b'{"text": "two\\n\\nlines"}', b"[DONE]"]


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"


def exchange(body: bytes, size: int, *, is_chunked: bool = True) -> Exchange:
    reads = [(float(i), body[i : i + size]) for i in range(0, len(body), size)]
    return Exchange(0.0, reads, 200, is_chunked)


def test_events_survive_every_cut() -> None:
    sent = [b"data: %s\n\n" % event for event in EVENTS]
    bodies = [chunked(*sent), chunked(b"".join(sent)), chunked(b": alive\n\n", *sent)]
    bodies.append(chunked(b"".join(sent)[:13], b"".join(sent)[13:]))
    for body in bodies:
        for size in range(1, len(body) + 1):
            assert [data for _, data in exchange(body, size).events()] == EVENTS


def test_an_event_has_the_time_of_its_last_byte() -> None:
    body = chunked(b"data: x\n\n")
    ((when, _),) = exchange(body, 1).events()
    assert when == len(body) - len(b"0\r\n\r\n") - 1


def test_body_without_framing() -> None:
    assert exchange(chunked(b"ab", b"cd"), 3).body() == b"abcd"
    assert exchange(b'{"error": "x"}', 4, is_chunked=False).body() == b'{"error": "x"}'
