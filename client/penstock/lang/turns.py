"""Turns of a conversation: `s.user("…")`, or `with s.user(): s += "…"`."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Self

from penstock.lang.expressions import Expression, RoleBegin, RoleEnd


class Turns:
    """What states have in common, whether they run a program or trace it."""

    def __iadd__(self, other: Any) -> Self:
        raise NotImplementedError

    def _between(self, begin: Expression, end: Expression) -> AbstractContextManager[Self]:
        """What is added within stands between these."""
        raise NotImplementedError

    def system(self, expression: Any = None) -> Any:
        return self._turn("system", expression)

    def user(self, expression: Any = None) -> Any:
        return self._turn("user", expression)

    def assistant(self, expression: Any = None) -> Any:
        return self._turn("assistant", expression)

    def _turn(self, role: str, expression: Any) -> Any:
        if expression is None:
            return self._between(RoleBegin(role), RoleEnd(role))
        self.__iadd__([RoleBegin(role), expression, RoleEnd(role)])
        return None
