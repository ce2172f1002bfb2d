"""What an option is: its row of the table."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from penstock_launcher.kinds import Kind
from penstock_launcher.spellings import SPELLINGS, Spelling

PREFIX = "TGI_"


@dataclass(frozen=True, slots=True)
class Option:
    """One option as a user meets it."""

    name: str  # the field of Options
    group: str  # the name of its group
    kind: Kind
    help: str
    default: Any
    default_text: str  # what --help and docs/options.md show
    short: str | None
    secret: bool  # never printed
    in_environment: bool
    env_fallback: str | None  # used when the environment's value is invalid, instead of an error
    also: tuple[str, ...]  # further variables that say the same
    overrides: tuple[str, ...]  # variables of hosting platforms, which beat all others

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def spellings(self) -> tuple[Spelling, ...]:
        """What vLLM and SGLang call it."""
        return tuple(spelling for spelling in SPELLINGS if spelling.option == self.name)

    @property
    def variable(self) -> str | None:
        return self.name.upper() if self.in_environment else None

    @property
    def variables(self) -> tuple[str, ...]:
        """Where the environment may give it; the first that does is the one that is named."""
        if self.variable is None:
            return ()
        return (self.variable, f"{PREFIX}{self.variable}", *self.also)


def option(
    default: Any,
    kind: Kind,
    help: str,
    *,
    default_text: str = "",
    short: str | None = None,
    secret: bool = False,
    in_environment: bool = True,
    env_fallback: str | None = None,
    also: tuple[str, ...] = (),
    overrides: tuple[str, ...] = (),
) -> Any:
    """A field of a group's dataclass."""
    metadata = {
        "kind": kind,
        "help": help,
        "default_text": default_text or _shown(default),
        "short": short,
        "secret": secret,
        "in_environment": in_environment,
        "env_fallback": env_fallback,
        "also": also,
        "overrides": overrides,
    }
    return dataclasses.field(default=default, metadata=metadata)


def _shown(default: Any) -> str:
    if default in (None, (), False):
        return ""
    return f"{default:g}" if isinstance(default, float) else str(default)
