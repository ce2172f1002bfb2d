"""One batch of a server, from validation to the files of its results."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

from penstock.batches.requests import BadLine, BatchRequest, Survey, read_lines, survey
from penstock.batches.results import ResultFile, refused
from penstock.batches.runner import Batch, Counts, resume, run
from penstock.batches.sending import Server, Unreachable
from penstock_proto.batch_folder import (
    CANCEL,
    CONTENT,
    ENDED,
    ERRORS,
    INPUT,
    OUTPUT,
    BatchFolder,
    new_id,
    read_object,
    write_object,
)

MOST_LINES = 50_000  # OpenAI's
MOST_ERRORS = 50  # of validation that are listed
TELL_SECONDS = 1.0  # between two writes of the counts
WAIT_SECONDS = 5.0  # until a server that is away is asked again
LIFE = 30 * 86_400  # seconds that results are kept


class Job:
    """A batch that is run; `shown` is its object, which only this writes."""

    def __init__(
        self,
        folder: BatchFolder,
        owner: str,
        path: Path,
        on_results: Callable[[int, int], None] = lambda completed, failed: None,
    ) -> None:
        """on_results: hears of each that is new. Raises ValueError where there is no object."""
        shown = read_object(path)
        if shown is None:
            raise ValueError(f"{path} holds no batch")
        self.shown: dict[str, Any] = shown
        self._folder = folder
        self._owner = owner
        self._path = path
        self._on_results = on_results
        self._counted: tuple[int, int] | None = None
        self._told = 0.0

    @property
    def counts(self) -> dict[str, int]:
        counts: dict[str, int] = self.shown["request_counts"]
        return counts

    async def run(self, server: Server, concurrency: int, limit: int) -> None:
        """Returns when it has ended, one way or another. limit: bytes of its results."""
        source, endpoint = self._path / INPUT, self.shown["endpoint"]
        try:
            found = await asyncio.to_thread(survey, source, MOST_LINES)
        except ValueError as error:
            return self.fail("too_many_requests", str(error))
        if self.shown["status"] == "validating":
            wrong = await asyncio.to_thread(list, problems(source, endpoint, found))
            if wrong:
                return self._end("failed", errors=_listed(wrong))
            self._update(status="in_progress", in_progress_at=_now())
        if self.shown["status"] == "in_progress":
            await self._answer(server, found, concurrency, limit)
        await asyncio.to_thread(self._finish)

    async def _answer(self, server: Server, found: Survey, concurrency: int, limit: int) -> None:
        output, errors = ResultFile(self._path / OUTPUT), ResultFile(self._path / ERRORS)
        batch = Batch(
            requests=self._path / INPUT,
            survey=found,
            output=output,
            errors=errors,
            endpoint=self.shown["endpoint"],
        )
        try:
            work = self._persist(batch, server, concurrency)
            ending = await self._until_end(work, limit)
            if ending == "expired":
                await asyncio.to_thread(expire, batch)
        finally:
            output.close()
            errors.close()
        # what the files will be called is said before they are there: so a crash here makes no more
        names = {
            name: new_id("file") if (self._path / file).stat().st_size else None
            for name, file in (("output_file_id", OUTPUT), ("error_file_id", ERRORS))
        }
        self._update(status="finalizing", finalizing_at=_now(), ending=ending, **names)

    async def _until_end(self, working: Coroutine[Any, Any, None], limit: int) -> str:
        """Runs until all is answered, the time is up, or it must end: which status that is."""
        left = self.shown["expires_at"] - time.time()
        work = asyncio.create_task(working)
        watch = asyncio.create_task(self._watch(limit))
        try:
            await asyncio.wait(
                {work, watch}, timeout=max(left, 0.0), return_when=asyncio.FIRST_COMPLETED
            )
            if work.done():
                await work
                return "completed"
            return watch.result() if watch.done() else "expired"
        finally:
            watch.cancel()
            work.cancel()
            await asyncio.wait({work, watch})

    async def _persist(self, batch: Batch, server: Server, concurrency: int) -> None:
        """A server that is away comes back, or the time of the batch is up."""
        while True:
            try:
                counts = await run(batch, server, concurrency=concurrency, progress=self._tell)
                self._tell(counts, at_once=True)
                return
            except Unreachable:
                await asyncio.sleep(WAIT_SECONDS)

    async def _watch(self, limit: int) -> str:
        """Returns when somebody cancels it, or its results take too much room."""
        while not (self._path / CANCEL).exists():
            size = sum((self._path / name).stat().st_size for name in (OUTPUT, ERRORS))
            if size > limit:
                said = f"the results take more than {limit:,} bytes"
                self._update(errors=_listed([_problem("too_large", said, None, None)]))
                return "failed"
            await asyncio.sleep(TELL_SECONDS)
        return "cancelled"

    def _finish(self) -> None:
        """Results become files, whatever was done of it before a crash; then it has ended."""
        for name, file, label in (
            ("output_file_id", OUTPUT, "output"),
            ("error_file_id", ERRORS, "errors"),
        ):
            if self.shown[name] is not None:
                self._publish(self.shown[name], self._path / file, label)
        self._end(self.shown.pop("ending"))

    def _publish(self, name: str, results: Path, label: str) -> None:
        parent = self._folder.of("file", self._owner)
        folder = parent / name
        if folder.exists():
            return
        hidden = parent / f".{name}"
        hidden.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (hidden / CONTENT).exists():
            os.link(results, hidden / CONTENT)
        created = _now()
        shown = {
            "id": name,
            "object": "file",
            "bytes": (hidden / CONTENT).stat().st_size,
            "created_at": created,
            "expires_at": created + LIFE,
            "filename": f"{self._path.name}_{label}.jsonl",
            "purpose": "batch_output",
            "status": "processed",
            "status_details": None,
        }
        write_object(hidden, shown)
        os.rename(hidden, folder)

    def fail(self, code: str, message: str) -> None:
        """Ends it before anything of it was answered."""
        self._end("failed", errors=_listed([_problem(code, message, None, None)]))

    def _end(self, status: str, **changes: Any) -> None:
        assert status in ENDED
        if status == "cancelled":
            changes["cancelling_at"] = _now()
        self._update(status=status, **{f"{status}_at": _now()}, **changes)
        for name in (INPUT, OUTPUT, ERRORS):  # results are links of files by now
            (self._path / name).unlink(missing_ok=True)

    def _tell(self, counts: Counts, at_once: bool = False) -> None:
        now = counts.completed, counts.failed
        before = self._counted or now  # the first ones were counted when they were answered
        self._counted = now
        self._on_results(now[0] - before[0], now[1] - before[1])
        if at_once or time.monotonic() - self._told > TELL_SECONDS:
            self._told = time.monotonic()
            told = {"total": counts.total, "completed": counts.completed, "failed": counts.failed}
            self._update(request_counts=told)

    def _update(self, **changes: Any) -> None:
        self.shown |= changes
        write_object(self._path, self.shown)


def problems(path: Path, endpoint: str, found: Survey) -> Iterator[dict[str, Any]]:
    """What is wrong with a file, as OpenAI lists it, at most 50 entries."""
    if not found.lines:
        yield _problem("empty_file", "the file holds no requests", None, None)
    listed = 0
    for line, text in enumerate(read_lines(path)):
        try:
            BatchRequest.parse(text, endpoint)
            if line in found.repeated:
                said = "an earlier line has the same `custom_id`"
                raise BadLine("duplicate_custom_id", said, "custom_id")
        except BadLine as error:
            yield _problem(error.code, str(error), error.param, line + 1)
            listed += 1
            if listed == MOST_ERRORS:
                return


def _listed(wrong: list[dict[str, Any]]) -> dict[str, Any]:
    return {"object": "list", "data": wrong}


def _problem(code: str, message: str, param: str | None, line: int | None) -> dict[str, Any]:
    return {"code": code, "message": message, "param": param, "line": line}


def expire(batch: Batch) -> None:
    """A line for each request that was not answered in time."""
    assert batch.errors is not None
    done, _ = resume(batch)
    late = []
    for line, text in enumerate(read_lines(batch.requests)):
        if not done[line]:
            name = BatchRequest.parse(text).custom_id
            late.append(refused(line, name, "batch_expired", "the batch's time was up"))
    batch.errors.append(late)


def _now() -> int:
    return int(time.time())
