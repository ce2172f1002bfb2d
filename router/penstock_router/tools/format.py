"""What a format of tool calls says: a row of `formats`.

A row's markers are literals. Which of them are tokens is for the model's vocabulary to say
(`alphabet.py`), so one row serves models that have a marker as a token and those that spell it.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

from penstock_router.tools.styles.style import Style


class Ids(enum.Enum):
    """What the ids of calls look like."""

    LONG = "call_ and 24 hexadecimal digits, as OpenAI's"
    SHORT = "9 letters and digits"
    OWN = "what the model writes as the call's head"


@dataclass(frozen=True)
class Format:
    """One row.

    opens: markers behind which a call stands; the first one is what the model is made to write.
    bare: characters that begin a call where an answer may begin, without a marker.
    strays: markers around and between calls, which are never shown.
    section: what stands around all calls, where a model is made to write them. pads: around each,
    within its markers. between: calls of one answer, where they are several.
    template: what is found in chat templates of such models. names: those of vLLM and SGLang.
    """

    name: str
    style: Style
    opens: tuple[str, ...] = ()
    bare: str = ""
    strays: tuple[str, ...] = ()
    section: tuple[str, str] = ("", "")
    between: str | None = ""  # None: one call only
    pads: tuple[str, str] = ("", "")
    separators: str = ""  # characters between bare calls
    wraps: bool = False  # an answer without calls stands between markers too
    ids: Ids = Ids.LONG
    names: tuple[str, ...] = ()
    template: str = r"(?!)"

    @property
    def strings(self) -> list[str]:
        """Those that may hold markers."""
        return [*self.opens, *self.strays, *self.section, self.between or "", *self.style.strings]

    def encoded(self, encode: Callable[[str], str]) -> Self:
        """The same with its strings as an `Alphabet` encodes them."""
        return replace(
            self,
            style=self.style.encoded(encode),
            opens=tuple(map(encode, self.opens)),
            strays=tuple(map(encode, self.strays)),
            section=(encode(self.section[0]), encode(self.section[1])),
            between=None if self.between is None else encode(self.between),
        )

    def recognises(self, template: str) -> bool:
        """Whether a chat template is one of such a model."""
        return re.search(self.template, template) is not None
