"""A server of this process's own: started here, gone with it.

It is the launcher as a child process on 127.0.0.1, with a free port. Whatever ends this process,
nothing of the server is left: `close` and the end of the interpreter tell it to end, and a launcher
that was told of its parent (PENSTOCK_PARENT) ends when that is gone, killed or not.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Mapping
from typing import Any, Self

from penstock.server_log import Screen, ServerLog
from penstock_proto.progress import WANTED

CLOSE_SECONDS = 10.0  # to end in order, then it is killed
LAST_WORDS_SECONDS = 5.0  # for the launcher to say why it ends, once a part of it is gone
DRAIN_SECONDS = 2.0  # that requests get which run when it is closed, by default
CLOSED = "it was closed: close() ended the server, and a new one has to be made"


class ServerError(RuntimeError):
    """The server could not start, or has ended. Says why, in its own words."""


class WrongOption(ServerError, ValueError):
    """An option breaks a rule, and nothing was started."""


class EmbeddedServer:
    """A running server, for as long as this object lives. A context manager.

    model: a hub id or a folder; None: the built-in demo model. options: those of the launcher,
    under their names with underscores: num_shard=2, disable_prefix_cache=True, api_key="…"
    (`launcher --help`). True names a switch; None and False leave an option out; a list repeats it.
    environment: variables beside those of this process. quiet: nothing is shown; else progress of
    the start, and warnings, on standard error: bars where that is a terminal, else a few lines.
    progress: that of the weights is shown too. names: of options -> what the program calls them, in
    all that is said of them.

    Raises ServerError with the launcher's last error; where that is about an option, WrongOption.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        quiet: bool = False,
        progress: bool = True,
        names: Mapping[str, str] = {},
        **options: Any,
    ) -> None:
        known = {"model_id": "model"} | {name: name for name in options} | dict(names)
        variables = {**os.environ, **(environment or {}), "PENSTOCK_PARENT": str(os.getpid())}
        screen = Screen(quiet=quiet, progress=progress)
        variables |= {WANTED: "1" if screen.draws else ""}
        variables.pop("API_KEY", None)  # whatever it is for
        if (key := options.pop("api_key", None)) is not None:
            variables["API_KEY"] = key  # others may read a command line
        given = {"hostname": "127.0.0.1", "port": 0, "model_id": model} | options
        given.setdefault("graceful_termination_timeout", DRAIN_SECONDS)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "penstock_launcher", "--json-output", *_flags(given)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=variables,
            start_new_session=True,  # Ctrl-C is this process's to handle
        )
        self._finalizer = weakref.finalize(self, _end, self.process, os.getpid())
        assert self.process.stdout is not None
        self._closed = False
        self._log = ServerLog(self.process.stdout, known, screen)
        try:
            self._log.decided.wait()
            if self._log.ready is None:
                wrong = self._log.usage_error
                raise ServerError(self._why()) if wrong is None else WrongOption(wrong)
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """Where it listens: http://127.0.0.1:PORT."""
        assert self._log.ready is not None
        return str(self._log.ready["url"])

    @property
    def facts(self) -> Mapping[str, Any]:
        """What it said when it was ready: model, limits, memory."""
        assert self._log.ready is not None
        return self._log.ready

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def check(self) -> None:
        """Raises ServerError where it has ended."""
        if not self.alive:
            raise ServerError(self._why())

    def why_gone(self) -> str:
        """Why it has ended, or is about to."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(LAST_WORDS_SECONDS)
        if self.alive:
            return "the server does not answer"
        return self._why()

    def close(self) -> None:
        """End it and all that it started. Harmless when it has ended."""
        self._closed = True
        self._finalizer()
        self._log.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _why(self) -> str:
        code = self.process.wait()
        if self._closed:
            return CLOSED
        self._log.join()
        return self._log.last_error or f"the server has ended with code {code}"


def _flags(options: Mapping[str, Any]) -> list[str]:
    flags: list[str] = []
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        for one in value if isinstance(value, list | tuple) else [value]:
            if one is True:
                flags.append(flag)
            elif one is not None and one is not False:
                flags.append(f"{flag}={os.fspath(one) if isinstance(one, os.PathLike) else one}")
    return flags


def _end(process: subprocess.Popen[bytes], owner: int) -> None:
    """SIGTERM, in the end SIGKILL: what the launcher leaves then, its janitor ends."""
    if os.getpid() != owner:  # a fork of the process that it belongs to
        return
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
