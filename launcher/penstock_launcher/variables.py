"""An option in the environment: under which names, and what counts where several are given."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from penstock_launcher.options import Option

# What a pod finds in the environment for every service: a service named `prometheus` makes
# PROMETHEUS_PORT, one named `tgi` TGI_PORT.
KUBERNETES_LINK = re.compile(r"(tcp|udp|sctp)://\S+:\d+")


@dataclass(frozen=True, slots=True)
class Given:
    """A variable that is set, and what it says."""

    variable: str
    text: str
    value: object


class Reader:
    """Reads options from an environment; `notices` says what the operator should know of it."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.notices: list[str] = []

    def read(self, option: Option) -> Given | None:
        """What counts; None where no variable gives the option.

        A platform that runs containers says where it will look for them, whatever the image was
        made for, so its variables beat the others. Raises ValueError for a value that breaks its
        rule, and for two that contradict each other.
        """
        for names in (option.overrides, option.variables):
            if found := list(filter(None, (self._given(option, name) for name in names))):
                first, *others = found
                for other in others:
                    if other.value != first.value:
                        raise ValueError(_contradiction(option, first, other))
                return first
        return self._fallback(option)

    def _given(self, option: Option, name: str) -> Given | None:
        if not (text := self._environ.get(name)):
            return None
        if option.kind.counts and KUBERNETES_LINK.fullmatch(text):
            self.notices.append(
                f"environment variable {name}={text} is ignored: Kubernetes makes it for a "
                f"service of that name; {option.flag} sets the option"
            )
            return None
        try:
            return Given(name, text, _parse(option, text))
        except ValueError:
            if option.env_fallback is None:
                raise ValueError(
                    f"environment variable {name} {broken_rule(option, text)}"
                ) from None
            return None

    def _fallback(self, option: Option) -> Given | None:
        """Where a variable is set that breaks the rule, and no other one says better."""
        if (fallback := option.env_fallback) is None:
            return None
        for name in filter(self._environ.get, option.variables):
            rule = broken_rule(option, self._environ[name])
            self.notices.append(f"environment variable {name} {rule}; using {fallback}")
            return Given(name, fallback, option.kind.parse(fallback))
        return None


def broken_rule(option: Option, text: str) -> str:
    """Completes a sentence that begins with the option's name; a secret is not repeated."""
    return f"must be {option.kind.rule}" + ("" if option.secret else f", not {text!r}")


def _parse(option: Option, text: str) -> object:
    if not option.kind.repeated:
        return option.kind.parse(text)
    return tuple(option.kind.values(text))


def _contradiction(option: Option, one: Given, other: Given) -> str:
    shown = (
        given.variable if option.secret else f"{given.variable}={given.text}"
        for given in (one, other)
    )
    return (
        f"environment variables {' and '.join(shown)} contradict each other: both mean "
        f"{option.flag}; unset one of them"
    )
