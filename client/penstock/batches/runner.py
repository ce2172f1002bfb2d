"""Answers a file of requests: so many at a time, each once, whatever ends the process meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from penstock.batches.requests import BadLine, BatchRequest, Survey, read_lines
from penstock.batches.results import ResultFile, answered, refused
from penstock.batches.sending import Server, send

WAITING_LINES = 1024  # of results that the disk does not have yet; then senders wait


@dataclass(slots=True)
class Counts:
    """How far a batch is."""

    total: int
    completed: int = 0
    failed: int = 0

    @property
    def ended(self) -> int:
        return self.completed + self.failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A file, and where its answers go. Without `errors` all go to `output`."""

    requests: Path
    survey: Survey
    output: ResultFile
    errors: ResultFile | None = None
    endpoint: str | None = None  # the only one that lines may name


@dataclass(frozen=True, slots=True)
class _Result:
    """A line on its way to the disk."""

    file: ResultFile
    line: bytes
    good: bool


Results = asyncio.Queue[_Result | None]  # None: no more will come


def resume(batch: Batch) -> tuple[bytearray, Counts]:
    """Which lines have an answer already, and the counts of those. Raises WrongFile."""
    done = bytearray(batch.survey.lines)
    counts = Counts(batch.survey.lines)
    for file in filter(None, (batch.output, batch.errors)):
        count, failed = file.resume(batch.survey, done)
        counts.completed += count - failed
        counts.failed += failed
    return done, counts


async def run(
    batch: Batch,
    server: Server,
    *,
    concurrency: int,
    progress: Callable[[Counts], None] = lambda counts: None,
) -> Counts:
    """Returns when every line has its result on the disk.

    Raises Unreachable when the server is gone; what was answered until then is on the disk, and
    another run goes on behind it. Raises WrongFile.
    """
    done, counts = await asyncio.to_thread(resume, batch)
    progress(counts)
    results: Results = asyncio.Queue(WAITING_LINES)
    writer = asyncio.create_task(_write(results, counts, progress))
    workers = asyncio.create_task(_work(batch, done, server, results, concurrency))
    try:
        # the writer ends first only where the disk fails it
        await asyncio.wait({writer, workers}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        workers.cancel()
        await asyncio.wait({workers})
        if not writer.done():
            await results.put(None)
        await writer
    await workers
    return counts


async def _work(
    batch: Batch, done: bytearray, server: Server, results: Results, concurrency: int
) -> None:
    lines = _open_lines(batch, done)
    connector = aiohttp.TCPConnector(limit=concurrency)
    async with aiohttp.ClientSession(connector=connector) as session:
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(concurrency, batch.survey.lines)):
                    group.create_task(_worker(batch, lines, session, server, results))
        except ExceptionGroup as several:
            raise several.exceptions[0] from None


def _open_lines(batch: Batch, done: bytearray) -> Iterator[tuple[int, bytes]]:
    for line, text in enumerate(read_lines(batch.requests)):
        if line < len(done) and not done[line]:
            yield line, text


async def _worker(
    batch: Batch,
    lines: Iterator[tuple[int, bytes]],
    session: aiohttp.ClientSession,
    server: Server,
    results: Results,
) -> None:
    """Takes line by line until there are no more."""
    for line, text in lines:
        result, good = await _result(batch, line, text, session, server)
        file = batch.output if good or batch.errors is None else batch.errors
        await results.put(_Result(file, result, good))


async def _result(
    batch: Batch, line: int, text: bytes, session: aiohttp.ClientSession, server: Server
) -> tuple[bytes, bool]:
    try:
        request = BatchRequest.parse(text, batch.endpoint)
        if line in batch.survey.repeated:
            said = "an earlier line has the same `custom_id`"
            raise BadLine("duplicate_custom_id", said, "custom_id", request.custom_id)
    except BadLine as error:
        return refused(line, error.custom_id, error.code, str(error)), False
    answer = await send(session, server, request)
    shown = answered(line, request.custom_id, answer.status, answer.request_id, answer.body)
    return shown, answer.status == 200


async def _write(results: Results, counts: Counts, progress: Callable[[Counts], None]) -> None:
    """Puts results on the disk: all that have come while it was busy with the last ones."""
    more = True
    while more:
        group = [await results.get()]
        while not results.empty():
            group.append(results.get_nowait())
        more = None not in group
        came = [result for result in group if result is not None]
        for file in {result.file for result in came}:
            lines = [result.line for result in came if result.file is file]
            await asyncio.to_thread(file.append, lines)
        good = sum(result.good for result in came)
        counts.completed += good
        counts.failed += len(came) - good
        progress(counts)
