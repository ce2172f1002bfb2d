"""Control tokens that a template makes around a role: `'<|' + message.role + '|>'`."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from penstock_router.templates.traced import ROLE, TEMPLATE, runs

# A template is trusted with these. With any others a client could name a control token.
STANDARD = frozenset({"system", "developer", "user", "assistant", "tool", "function"})


class RoleTokens:
    """The model's control tokens, looked at for roles inside them."""

    def __init__(self, control_tokens: Sequence[str]) -> None:
        self._control_tokens = control_tokens
        self._around = functools.lru_cache(64)(self._find)

    def claim(self, text: str, marks: bytearray) -> None:
        """Make a role the template's where the template has made a control token around it.

        A token that is nothing but the role stays text, as all that clients write.
        """
        for start, stop in runs(marks, rb"%c+" % ROLE):
            for token, before in self._around(text[start:stop]):
                first, last = start - before, start - before + len(token)
                around = marks[max(first, 0) : start] + marks[stop:last]
                if text.startswith(token, max(first, 0)) and around.count(TEMPLATE) == len(around):
                    marks[start:stop] = bytes([TEMPLATE]) * (stop - start)

    def _find(self, role: str) -> list[tuple[str, int]]:
        """Each token with the role inside it, and how much of it stands before the role."""
        return [(t, t.index(role)) for t in self._control_tokens if role in t and role != t]
