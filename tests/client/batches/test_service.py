"""Batches as the process of a server runs them: whatever was done of one before it is started."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from penstock.batches import job, purge
from penstock.batches.job import Job
from penstock.batches.results import ResultFile, answered
from penstock.batches.sending import Server
from penstock_proto.batch_folder import BatchFolder, owner_of, read_object, write_object
from penstock_router.batches.store import Store

OWNER = owner_of(None)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "TELL_SECONDS", 0.02)
    monkeypatch.setattr(job, "WAIT_SECONDS", 0.05)


class World:
    """A folder, and one batch in it."""

    def __init__(self, root: Path, count: int = 6) -> None:
        self.store = Store(root, 10_000_000)
        self.folder = BatchFolder(root)
        body = {"messages": [{"role": "user", "content": "w"}]}
        entry = {"method": "POST", "url": "/v1/chat/completions", "body": body}
        lines = [json.dumps({"custom_id": f"r{i}"} | entry) for i in range(count)]
        with self.store.upload(OWNER) as (name, folder):
            (folder / "content").write_text("\n".join(lines))
            self.store.keep(name, folder, filename="in", purpose="batch", seconds=9999)
        made = self.store.create_batch(OWNER, name, "/v1/chat/completions", 24, {})
        assert made is not None
        self.name = made["id"]
        self.path = self.folder.of("batch", OWNER) / self.name

    def run(self, url: str, limit: int = 10_000_000) -> dict[str, Any]:
        """Runs the batch to its end; what clients see then."""
        server = Server(url=url, headers={}, tries=2, first_pause=0.01)
        asyncio.run(Job(self.folder, OWNER, self.path).run(server, 2, limit))
        shown = self.store.get("batch", OWNER, self.name)
        assert shown is not None
        return shown

    def change(self, **changes: Any) -> None:
        write_object(self.path, (read_object(self.path) or {}) | changes)

    def content(self, name: str) -> list[dict[str, Any]]:
        file = self.store.open_content(OWNER, name)
        assert file is not None
        with file:
            return [json.loads(line) for line in file]


def test_goes_on_behind_what_was_answered(chat_server: Any, tmp_path: Path) -> None:
    server, url = chat_server
    world = World(tmp_path)
    world.change(status="in_progress")
    before = ResultFile(world.path / "output.jsonl")
    before.append([answered(i, f"r{i}", 200, "", {}) for i in (1, 4)])
    before.close()
    shown = world.run(url)
    assert shown["status"] == "completed" and len(server.asked) == 4
    assert shown["request_counts"] == {"total": 6, "completed": 6, "failed": 0}
    assert {line["custom_id"] for line in world.content(shown["output_file_id"])} == {
        f"r{i}" for i in range(6)
    }
    assert shown["error_file_id"] is None and "ending" not in shown
    assert os.listdir(world.path) == ["object.json"]


def test_a_crash_while_files_are_made_makes_no_more_of_them(
    chat_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)

    def crash(*arguments: Any, **changes: Any) -> None:
        raise RuntimeError("crash")

    with monkeypatch.context() as patched:
        patched.setattr(Job, "_end", crash)
        with pytest.raises(RuntimeError, match="crash"):
            world.run(chat_server[1])
    files = [file["id"] for file in world.store.listed("file", OWNER)]
    shown = world.run(chat_server[1])
    assert shown["status"] == "completed" and shown["output_file_id"] in files
    assert [file["id"] for file in world.store.listed("file", OWNER)] == files


def test_a_server_that_is_away_is_waited_for(chat_server: Any, tmp_path: Path) -> None:
    server, url = chat_server
    tries = iter([503] * 5)
    server.behave = lambda content: next(tries, 200)
    assert World(tmp_path).run(url)["request_counts"]["completed"] >= 4
    world = World(tmp_path)
    world.change(expires_at=time.time() + 0.3)
    shown = world.run("http://127.0.0.1:9")  # until the batch's time is up
    assert shown["status"] == "expired" and shown["expired_at"] and not shown["output_file_id"]
    errors = world.content(shown["error_file_id"])
    assert [line["error"]["code"] for line in errors] == ["batch_expired"] * 6


def test_cancelled_or_too_large(chat_server: Any, tmp_path: Path) -> None:
    server, url = chat_server
    server.seconds = 0.05
    world = World(tmp_path, 200)
    (world.path / "cancel").touch()
    shown = world.run(url)
    assert shown["status"] == "cancelled" and shown["cancelling_at"]
    assert len(server.asked) < 200
    world = World(tmp_path, 200)
    shown = world.run(url, limit=100)
    assert shown["status"] == "failed" and shown["errors"]["data"][0]["code"] == "too_large"


def test_validation_names_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "MOST_LINES", 5)
    shown = World(tmp_path).run("http://127.0.0.1:9")
    assert shown["status"] == "failed"
    assert shown["errors"]["data"][0]["message"] == "a batch may have at most 5 requests"
    world = World(tmp_path, 0)
    shown = world.run("http://127.0.0.1:9")
    assert shown["errors"]["data"][0]["code"] == "empty_file"
    same = (World(tmp_path, 1).path / "input").read_text()
    world = World(tmp_path, 1)
    (world.path / "input").write_text(f"{same}\n{same}\n" + "x\n" * 3)
    codes = [(e["line"], e["code"]) for e in world.run("http://127.0.0.1:9")["errors"]["data"]]
    assert codes[0] == (2, "duplicate_custom_id") and len(codes) == 4


def test_what_is_over_goes(tmp_path: Path) -> None:
    world = World(tmp_path)
    broken = world.folder.of("file", OWNER) / ".file-x"
    broken.mkdir()
    assert purge.purge(world.folder) == {world.name} and broken.exists()
    os.utime(broken, (1, 1))
    (file,) = world.store.listed("file", OWNER)
    place = world.folder.find("file", OWNER, file["id"])
    assert place is not None
    write_object(place, file | {"expires_at": time.time() - 1})
    assert world.store.listed("file", OWNER) == []  # nobody sees it any more
    world.change(status="completed", created_at=1)
    assert purge.purge(world.folder) == set()
    assert not broken.exists() and not place.exists() and not world.path.exists()
