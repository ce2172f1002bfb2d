"""What a server of this process's own says while it starts and runs, and what of it is shown."""

from __future__ import annotations

import contextlib
import json
import re
import sys
import threading
from collections import deque
from collections.abc import Mapping
from typing import IO, Any

from penstock_proto.progress import Bars, Progress, Wait

END_SECONDS = 10.0  # for the launcher to end, once it was told to
KEPT_LINES = 20  # of the log, for the error that says why it ended
OPTION = re.compile(r"(?<![\w-])(?:argument )?(?:-\w/)?--(?P<option>[a-z][a-z0-9-]*)")
USAGE_ERROR = "launcher: error: "  # how the launcher begins what it says of a wrong option


class Screen:
    """Standard error, where somebody may look: lines, and on a terminal bars between them."""

    def __init__(self, *, quiet: bool, progress: bool) -> None:
        """progress: that of the weights is wanted too."""
        self._quiet = quiet
        self._progress = progress
        self.draws = bool(not quiet and progress and sys.stderr and sys.stderr.isatty())
        self._bars = Bars()

    def show(self, record: Mapping[str, Any]) -> None:
        """Progress, of a record that tells some."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if "wait" not in record:
                if progress := Progress.parse(str(record.get("process")), record["progress"]):
                    self._bars.show(progress)
            elif wait := Wait.parse(record["wait"]):
                self._bars.wait(wait)
            else:
                self._bars.waited()

    def say(self, message: str) -> None:
        """A line, if anybody wants it."""
        if not self._quiet and (self._progress or "% (" not in message):
            with contextlib.suppress(OSError, ValueError, AttributeError), self._bars.hidden():
                print(message, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Nothing more comes of the start."""
        self._bars.close()


class ServerLog:
    """Reads what the launcher writes, to the end, so that it never waits for a reader."""

    def __init__(self, stream: IO[bytes], names: Mapping[str, str], screen: Screen) -> None:
        """names: of options -> what the program calls them."""
        self.usage_error: str | None = None  # a wrong option
        self.ready: dict[str, Any] | None = None
        self.decided = threading.Event()  # it is ready, or has ended
        self._stream = stream
        self._names = names
        self._screen = screen
        self._error = ""
        self._raw: deque[str] = deque(maxlen=KEPT_LINES)
        self._thread = threading.Thread(target=self._read, name="penstock-log", daemon=True)
        self._thread.start()

    @property
    def last_error(self) -> str:
        """The last sentence that says what went wrong, else the last lines that are no records."""
        return self._error or "\n".join(self._raw)

    def join(self) -> None:
        """Wait for its end, which comes with that of the launcher."""
        if threading.current_thread() is not self._thread:
            self._thread.join(END_SECONDS)

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError), self._stream:
            for line in self._stream:
                self._take(line.decode(errors="replace").rstrip())
        self._decide()

    def _decide(self) -> None:
        if not self.decided.is_set():
            self._screen.close()
            self.decided.set()

    def _take(self, line: str) -> None:
        try:
            record = json.loads(line)
            if "progress" in record or "wait" in record:
                return self._screen.show(record)
            message, level = str(record["message"]), record.get("level", "INFO")
        except (ValueError, TypeError, KeyError, AttributeError):
            self._raw.append(line)
            if line.startswith(USAGE_ERROR):
                self.usage_error = self._error = renamed(
                    line.removeprefix(USAGE_ERROR), self._names
                )
            return
        message = renamed(message, self._names)
        if level == "ERROR":
            self._error = message
        if "url" in record and message.startswith("Penstock ready"):
            self.ready = record
        own = record.get("target") == "penstock_launcher" and message != "options"
        if level in ("WARN", "WARNING", "ERROR") or (own and not self.decided.is_set()):
            self._screen.say(message)
        if self.ready is not None:
            self._decide()


def renamed(sentence: str, names: Mapping[str, str]) -> str:
    """A sentence of the launcher with a program's names of options, where it has some."""

    def name(match: re.Match[str]) -> str:
        return names.get(match["option"].replace("-", "_"), match[0])

    return OPTION.sub(name, sentence)
