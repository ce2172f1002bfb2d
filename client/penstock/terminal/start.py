"""A server under the names of vLLM's and SGLang's modules, with the defaults of their users."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import NoReturn

from penstock.command import become
from penstock_proto.config_file import ConfigError, entries, path_of

SPELLINGS = {
    "--port": ("--port", "-p"),
    "--host": ("--host", "--hostname", "--uds"),
    "--metric-names": ("--metric-names",),
}


def start(argv: Sequence[str], defaults: Mapping[str, str]) -> NoReturn:
    """Become the launcher. Defaults give way to the command line, and to the file that it names."""
    given = {argument.partition("=")[0] for argument in argv}
    if (path := path_of(argv)) is not None:
        with contextlib.suppress(ConfigError):  # the launcher says what is wrong
            given |= {entry.flag for entry in entries(path)}
    added = [
        f"{flag}={value}" for flag, value in defaults.items() if given.isdisjoint(SPELLINGS[flag])
    ]
    become("penstock_launcher", [*added, *argv])
