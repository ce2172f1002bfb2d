"""The process that answers the batches of a server: a client of it, with its own clients' keys.

The router starts it, writes one line of JSON to its standard input (`Settings`), and ends it by
closing that. Batches that it had begun go on where they were when it is started again.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from penstock.batches.job import Job
from penstock.batches.purge import purge
from penstock.batches.sending import Server
from penstock_proto.batch_folder import ENDED, BatchFolder, owner_of, read_object

LOOK_SECONDS = 1.0
PURGE_SECONDS = 60.0
MOST_RUNNING = 4  # batches at a time, one of each key
TRIES = 100  # of one request
TARGET = "penstock.batches"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the router says."""

    folder: str
    url: str
    keys: tuple[str, ...]  # empty: none is needed
    storage_limit: int  # bytes that the results of a batch may take
    concurrency: int  # requests at a time, of all batches

    @classmethod
    def read(cls, line: str) -> Settings:
        values = json.loads(line)
        return cls(**values | {"keys": tuple(values["keys"])})


def say(level: str, message: str, **fields: object) -> None:
    """A log record, as all of the launcher's children write them."""
    record = {"level": level, "target": TARGET, "message": message, **fields}
    print(json.dumps(record), file=sys.stderr, flush=True)


class Tally:
    """What /metrics shows of batches: lines of JSON on standard output, which the router reads."""

    def __init__(self) -> None:
        self._fresh = {"completed": 0, "failed": 0}
        self._told: dict[str, int] | None = None

    def add(self, completed: int, failed: int) -> None:
        """So many requests have their results."""
        self._fresh["completed"] += completed
        self._fresh["failed"] += failed

    def tell(self, batches: Mapping[str, int]) -> None:
        """By status. Says nothing where nothing has changed."""
        if batches != self._told or any(self._fresh.values()):
            print(json.dumps({"batches": batches, "requests": self._fresh}), flush=True)
            self._told = dict(batches)
            self._fresh = dict.fromkeys(self._fresh, 0)


class Service:
    """Looks for batches and runs them."""

    def __init__(self, settings: Settings) -> None:
        self._folder = BatchFolder(Path(settings.folder))
        self._settings = settings
        keys: tuple[str | None, ...] = settings.keys or (None,)
        self._keys = {owner_of(key): key for key in keys}
        self._running: dict[str, tuple[Path, asyncio.Task[None]]] = {}  # by owner
        self._ended: dict[str, str] = {}  # statuses of batches that nothing happens to any more
        self._tally = Tally()

    async def run(self) -> None:
        """For ever."""
        purged = 0.0
        while True:
            if time.monotonic() - purged > PURGE_SECONDS:
                purged = time.monotonic()
                left = await asyncio.to_thread(purge, self._folder)
                self._ended = {name: one for name, one in self._ended.items() if name in left}
            waiting, statuses = await asyncio.to_thread(self._waiting)
            self._tally.tell(Counter(statuses))
            for owner, path in waiting:
                if len(self._running) < MOST_RUNNING and owner not in self._running:
                    task = asyncio.create_task(self._answer(owner, path))
                    self._running[owner] = path, task
            await asyncio.sleep(LOOK_SECONDS)

    def _waiting(self) -> tuple[list[tuple[str, Path]], list[str]]:
        """Batches that have not ended, the oldest first; and the statuses of all."""
        found: list[tuple[float, str, Path]] = []
        statuses: list[str] = []
        for owner in self._folder.owners("batch"):
            for path in self._folder.paths("batch", owner):
                if path.name in self._ended or (shown := read_object(path)) is None:
                    continue
                if shown["status"] in ENDED:
                    self._ended[path.name] = shown["status"]
                else:
                    found.append((shown["created_at"], owner, path))
                    statuses.append(shown["status"])
        waiting = [(owner, path) for _, owner, path in sorted(found)]
        return waiting, [*statuses, *self._ended.values()]

    async def _answer(self, owner: str, path: Path) -> None:
        try:
            job = Job(self._folder, owner, path, self._tally.add)
            key = self._keys.get(owner)
            if owner not in self._keys:
                job.fail("unknown_key", "the API key that made this batch is none any more")
                return
            headers = {"x-priority": "-50"}
            if key is not None:
                headers["Authorization"] = f"Bearer {key}"
            share = max(1, self._settings.concurrency // MOST_RUNNING)
            server = Server(url=self._settings.url, headers=headers, tries=TRIES)
            await job.run(server, share, self._settings.storage_limit)
            say("INFO", f"a batch is {job.shown['status']}", batch=path.name, **job.counts)
        except Exception as error:  # one batch harms no other
            say("ERROR", f"a batch could not be run: {error!r}", batch=path.name)
            await asyncio.sleep(LOOK_SECONDS * 5)
        finally:
            del self._running[owner]


def _end_with_parent() -> None:
    """The router closes its end of the pipe when it ends, in order or not."""
    sys.stdin.read()
    os._exit(0)


def main() -> None:
    settings = Settings.read(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    asyncio.run(Service(settings).run())


if __name__ == "__main__":
    main()
