"""The launcher's private folder: sockets of the shards, and what else lives as long as a run."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Self

from penstock_launcher import janitor
from penstock_launcher.configs import without_secrets
from penstock_launcher.errors import LauncherError

# sun_path holds 108 bytes with the final zero; the longest name in the folder is /shard-63.sock
MAX_PATH = 107 - len("/shard-63.sock")


class RunFolder:
    """A fresh folder with mode 0700, and the janitor that removes it when the launcher is gone.

    A context manager. `started` and `gone` tell the janitor which process groups to kill should
    the launcher not live to do it.
    """

    def __init__(self, prefix: str) -> None:
        self.path = Path(f"{prefix}-{os.getpid()}-{secrets.token_hex(4)}").absolute()
        if len(os.fsencode(self.path)) > MAX_PATH:
            raise LauncherError(
                f"--shard-uds-path {prefix!r} is too long: a socket's path has at most 107 bytes"
            )

    def __enter__(self) -> Self:
        try:
            self.path.mkdir(mode=0o700)
        except OSError as error:
            reason = error.strerror
            raise LauncherError(f"cannot make {self.path} (--shard-uds-path): {reason}") from None
        # -I -S: no site-packages, so that it starts fast; a session of its own, so that neither
        # Ctrl-C nor a kill of the launcher's process group reaches it
        self._janitor = subprocess.Popen(
            [sys.executable, "-I", "-S", janitor.__file__, str(self.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=without_secrets(os.environ),
            start_new_session=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._janitor.stdin is not None
        with contextlib.suppress(OSError):
            self._janitor.stdin.close()
        try:
            self._janitor.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._janitor.kill()
            self._janitor.wait()
        shutil.rmtree(self.path, ignore_errors=True)  # only left if somebody killed the janitor

    def started(self, group: int) -> None:
        self._tell(f"+{group}\n")

    def gone(self, group: int) -> None:
        self._tell(f"-{group}\n")

    def _tell(self, line: str) -> None:
        assert self._janitor.stdin is not None
        with contextlib.suppress(OSError):
            self._janitor.stdin.write(line.encode())
            self._janitor.stdin.flush()
