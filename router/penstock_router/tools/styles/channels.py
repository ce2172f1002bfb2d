"""Messages that say in a header what they are: harmony's."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

from penstock_router.tools import jsontext
from penstock_router.tools.jsontext import MOST_NAME
from penstock_router.tools.reader import Literals, Reader, Steps
from penstock_router.tools.styles.style import Sink, Style, read_object

_RECIPIENT = re.compile(r"(?:^|to=)functions\.([A-Za-z0-9_.-]+)")


@dataclass(frozen=True)
class Channels(Style):
    """Harmony: every message says in its header what it is. Opens with what begins a header."""

    message: str = ""
    call: str = ""  # between the name and `message`
    ends: tuple[str, ...] = ()
    reasoning: str = "analysis"

    def read(self, reader: Reader, sink: Sink) -> Steps[None]:
        header, _ = yield from reader.collect(Literals((self.message,)), MOST_NAME)
        ends = Literals(self.ends)
        recipient = _RECIPIENT.search(header)
        if recipient is not None:
            sink.start(recipient[1])
            yield from read_object(reader, sink.arguments)
            sink.end_of_call()
            yield from reader.until(ends, jsontext.nothing)
        else:
            show = sink.reasoning if self.reasoning in header else sink.text
            yield from reader.until(ends, show)

    def encoded(self, encode: Callable[[str], str]) -> Self:
        return replace(super().encoded(encode), ends=tuple(map(encode, self.ends)))

    @property
    def strings(self) -> list[str]:
        return [*super().strings, *self.ends]
