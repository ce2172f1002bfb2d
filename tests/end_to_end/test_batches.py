"""Files and batches through the real server, by OpenAI's own client."""

from __future__ import annotations

import io
import json
import re
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest
from openai import OpenAI

from support.server import SMALL, Server, running_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("batches")
    options = ["--batch-folder", str(folder / "kept"), "--device", "cpu", "--http-processes", "2"]
    keys = ["--api-key", "alice-key", "--api-key", "bob-key", "--payload-limit", "10000"]
    with running_server(folder, *options, *keys, *SMALL) as running:
        yield running


def client(server: Server, key: str = "alice-key") -> OpenAI:
    return OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0)


def lines(count: int, **body: Any) -> bytes:
    asked = []
    for i in range(count):
        message = {"role": "user", "content": f"What is {i} plus 1?"}
        fields = {"model": "x", "messages": [message], "max_tokens": 4} | body
        entry = {"custom_id": f"r{i}", "method": "POST", "url": "/v1/chat/completions"}
        asked.append(json.dumps(entry | {"body": fields}))
    return "\n".join(asked).encode()


def ended(api: OpenAI, name: str, *, within: float = 60.0) -> Any:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        batch = api.batches.retrieve(name)
        if batch.status in ("completed", "failed", "expired", "cancelled"):
            return batch
        time.sleep(0.2)
    raise AssertionError(f"still {batch.status}")


def told(server: Server, family: str, **wanted: int) -> None:
    """Waits until /metrics says so, by the values of the family's label."""
    deadline, found = time.monotonic() + 60, {}
    while time.monotonic() < deadline:
        page = urllib.request.urlopen(f"{server.url}/metrics").read().decode()
        lines = re.findall(rf'^{family}\{{\w+="(\w+)"\}} (\d+)$', page, re.MULTILINE)
        found = {label: int(number) for label, number in lines}
        if wanted.items() <= found.items():
            return
        time.sleep(0.2)
    raise AssertionError(found)


def create(api: OpenAI, content: bytes) -> Any:
    file = api.files.create(file=("in.jsonl", io.BytesIO(content)), purpose="batch")
    return api.batches.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata={"who": "me"},
    )


def test_a_batch_is_answered(server: Server) -> None:
    api, content = client(server), lines(80)
    assert len(content) > 10_000  # more than a body may have elsewhere
    batch = create(api, content + b"\n" + lines(1, max_tokens=-1).replace(b'"r0"', b'"bad"'))
    assert batch.status == "validating" and batch.metadata == {"who": "me"}
    done = ended(api, batch.id)
    assert done.status == "completed" and done.completed_at >= done.created_at
    counts = done.request_counts
    assert (counts.total, counts.completed, counts.failed) == (81, 80, 1)
    told(server, "penstock_batches", completed=1, in_progress=0)
    told(server, "penstock_batch_requests_total", completed=80, failed=1)
    answers = [json.loads(line) for line in api.files.content(done.output_file_id).iter_lines()]
    assert {answer["custom_id"] for answer in answers} == {f"r{i}" for i in range(80)}
    assert all(answer["response"]["body"]["choices"] for answer in answers)
    (error,) = api.files.content(done.error_file_id).text.splitlines()
    assert json.loads(error)["response"]["status_code"] == 422
    listed = api.files.list(purpose="batch_output")  # type: ignore[arg-type]
    assert {file.id for file in listed} == {done.output_file_id, done.error_file_id}
    assert [each.id for each in api.batches.list(limit=1)][0] == batch.id
    assert (Path(server.sockets.parent) / "kept").stat().st_mode & 0o777 == 0o700


def test_files_are_their_key_s(server: Server) -> None:
    alice, bob = client(server), client(server, "bob-key")
    file = alice.files.create(file=("a.jsonl", b"{}"), purpose="batch")
    assert alice.files.retrieve(file.id).filename == "a.jsonl"
    assert alice.files.content(file.id).read() == b"{}"
    assert not list(bob.files.list())
    for call in (
        lambda: bob.files.retrieve(file.id),
        lambda: bob.files.content(file.id),
        lambda: bob.files.delete(file.id),
        lambda: bob.batches.create(
            input_file_id=file.id, endpoint="/v1/completions", completion_window="24h"
        ),
    ):
        with pytest.raises((openai.NotFoundError, openai.UnprocessableEntityError)):
            call()
    assert alice.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        alice.files.retrieve(file.id)


def test_a_wrong_file_fails_with_its_lines(server: Server) -> None:
    api = client(server)
    failed = ended(api, create(api, b'{"custom_id": "a"}\nnot json\n').id)
    assert failed.status == "failed" and failed.output_file_id is None
    found = [(error.line, error.code, error.param) for error in failed.errors.data]
    assert found == [(1, "invalid_url", "url"), (2, "invalid_json_line", None)]


def test_a_batch_can_be_cancelled(server: Server) -> None:
    api = client(server, "bob-key")
    batch = create(api, lines(2000, max_tokens=500, ignore_eos=True))
    while api.batches.retrieve(batch.id).status == "validating":
        time.sleep(0.1)
    assert api.batches.cancel(batch.id).status in ("cancelling", "cancelled")
    assert ended(api, batch.id).status == "cancelled"


@pytest.mark.full
def test_the_process_that_answers_comes_back(server: Server) -> None:
    def service() -> psutil.Process | None:
        for process in server.descendants():
            if "penstock.batches.service" in process.cmdline():
                return process
        return None

    api = client(server)
    batch = create(api, lines(60, max_tokens=8, ignore_eos=True))
    while not api.batches.retrieve(batch.id).request_counts.completed:
        time.sleep(0.05)
    running = service()
    assert running is not None
    running.kill()
    done = ended(api, batch.id)
    assert done.status == "completed" and done.request_counts.completed == 60
    names = [
        json.loads(line)["custom_id"]
        for line in api.files.content(done.output_file_id).text.splitlines()
    ]
    assert len(names) == len(set(names)) == 60
