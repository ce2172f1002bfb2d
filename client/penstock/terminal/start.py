"""A server under the names of vLLM's and SGLang's modules, with the defaults of their users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn

from penstock.command import become

SPELLINGS = {"--port": ("--port", "-p"), "--host": ("--host", "--hostname", "--uds")}


def start(argv: Sequence[str], defaults: Mapping[str, str]) -> NoReturn:
    """Become the launcher. Defaults count against nothing that the command line gives."""
    given = {argument.partition("=")[0] for argument in argv}
    added = [
        f"{flag}={value}" for flag, value in defaults.items() if given.isdisjoint(SPELLINGS[flag])
    ]
    become("penstock_launcher", [*added, *argv])
