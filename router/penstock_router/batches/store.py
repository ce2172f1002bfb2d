"""Files and batches on the disk, within bounds. Everything here blocks: it is called in threads."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from penstock_proto import batch_folder
from penstock_proto.batch_folder import BatchFolder

LARGEST_FILE = 200_000_000  # bytes; OpenAI's bound for batches
MOST_FILES = 1000  # of one key
MOST_BATCHES = 100  # of one key that have not ended
DAY = 86_400
LIFE = 30 * DAY  # seconds that a file is kept, at most


class NoRoom(Exception):
    """A bound is reached; the message names it."""


class Store:
    """What the API does with the folder."""

    def __init__(self, root: Path, limit: int) -> None:
        """limit: bytes of all files. Makes the folder, for this user alone. Raises OSError."""
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chmod(root, 0o700)
        self._folder = BatchFolder(root)
        self._limit = limit

    def check_room(self, owner: str, size: int) -> None:
        """Whether a file of so many bytes may come. Raises NoRoom."""
        if sum(1 for _ in self._folder.entries("file", owner)) >= MOST_FILES:
            raise NoRoom(f"there are {MOST_FILES:,} files already: delete some")
        if self.used() + size > self._limit:
            raise NoRoom(
                f"the files of all take {self._limit:,} bytes already (`--batch-storage-limit`)"
            )

    def used(self) -> int:
        """Bytes of all contents and results."""
        total = 0
        for parent, _, names in os.walk(self._folder.root):
            for name in names:
                try:
                    found = os.lstat(os.path.join(parent, name))
                except FileNotFoundError:
                    continue
                total += found.st_size // found.st_nlink  # an input is its file's content
        return total

    @contextmanager
    def upload(self, owner: str) -> Iterator[tuple[str, Path]]:
        """The id of a new file and the folder to write it into, gone unless `keep` was called."""
        name = batch_folder.new_id("file")
        parent = self._folder.of("file", owner)
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = parent / f".{name}"
        folder.mkdir(mode=0o700)
        try:
            yield name, folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def keep(
        self, name: str, folder: Path, *, filename: str, purpose: str, seconds: int
    ) -> dict[str, Any]:
        """Makes a file of what was uploaded; its object."""
        created = int(time.time())
        shown = file_object(
            name,
            size=(folder / batch_folder.CONTENT).stat().st_size,
            filename=filename,
            purpose=purpose,
            created=created,
            expires=created + seconds,
        )
        batch_folder.write_object(folder, shown)
        os.rename(folder, folder.parent / name)
        return shown

    def listed(self, kind: str, owner: str) -> list[dict[str, Any]]:
        """The objects of an owner, the latest first."""
        found = [self._shown(kind, *entry) for entry in self._folder.entries(kind, owner)]
        live = [each for each in found if each is not None]
        return sorted(live, key=lambda each: (each["created_at"], each["id"]), reverse=True)

    def get(self, kind: str, owner: str, name: str) -> dict[str, Any] | None:
        """An object; None where there is none."""
        path = self._folder.find(kind, owner, name)
        content = batch_folder.read_object(path) if path else None
        return self._shown(kind, path, content) if path and content else None

    def _shown(self, kind: str, path: Path, content: dict[str, Any]) -> dict[str, Any] | None:
        if kind == "file":
            return content if content["expires_at"] > time.time() else None
        if content["status"] not in batch_folder.ENDED and (path / batch_folder.CANCEL).exists():
            return content | {"status": "cancelling"}
        return content

    def open_content(self, owner: str, name: str) -> IO[bytes] | None:
        """The bytes of a file; None where there is none."""
        if self.get("file", owner, name) is None:
            return None
        path = self._folder.find("file", owner, name)
        try:
            return (path / batch_folder.CONTENT).open("rb") if path else None
        except FileNotFoundError:
            return None

    def delete_file(self, owner: str, name: str) -> bool:
        """False where there is none. A batch that reads it goes on."""
        path = self._folder.find("file", owner, name)
        if path is None:
            return False
        hidden = path.parent / f".{name}"
        try:
            os.rename(path, hidden)  # at once, so that nobody sees a part of it
        except FileNotFoundError:
            return False
        shutil.rmtree(hidden, ignore_errors=True)
        return True

    def create_batch(
        self, owner: str, file_id: str, endpoint: str, hours: int, metadata: Mapping[str, str]
    ) -> dict[str, Any] | None:
        """Queues a batch; its object, or None where there is no such file. Raises NoRoom."""
        source = self._folder.find("file", owner, file_id)
        if source is None or self.get("file", owner, file_id) is None:
            return None
        batches = [each for _, each in self._folder.entries("batch", owner)]
        if sum(each["status"] not in batch_folder.ENDED for each in batches) >= MOST_BATCHES:
            raise NoRoom(f"{MOST_BATCHES:,} batches wait or run already")
        name = batch_folder.new_id("batch")
        folder = self._folder.of("batch", owner) / f".{name}"
        folder.mkdir(mode=0o700, parents=True)
        try:
            os.link(source / batch_folder.CONTENT, folder / batch_folder.INPUT)
            shown = batch_object(name, file_id, endpoint, hours, metadata)
            batch_folder.write_object(folder, shown)
            os.rename(folder, folder.parent / name)
        except FileNotFoundError:  # the file is being deleted
            shutil.rmtree(folder, ignore_errors=True)
            return None
        return shown

    def cancel_batch(self, owner: str, name: str) -> dict[str, Any] | None:
        """Asks for its end; its object, or None where there is none."""
        shown = self.get("batch", owner, name)
        path = self._folder.find("batch", owner, name)
        if shown is None or path is None or shown["status"] in batch_folder.ENDED:
            return shown
        (path / batch_folder.CANCEL).touch()
        return self.get("batch", owner, name)


def file_object(
    name: str, *, size: int, filename: str, purpose: str, created: int, expires: int
) -> dict[str, Any]:
    """A file as OpenAI shows it."""
    return {
        "id": name,
        "object": "file",
        "bytes": size,
        "created_at": created,
        "expires_at": expires,
        "filename": filename,
        "purpose": purpose,
        "status": "processed",
        "status_details": None,
    }


def batch_object(
    name: str, file_id: str, endpoint: str, hours: int, metadata: Mapping[str, str]
) -> dict[str, Any]:
    """A batch as OpenAI shows it, when it begins to wait."""
    created = int(time.time())
    later = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling")
    return {
        "id": name,
        "object": "batch",
        "endpoint": endpoint,
        "errors": None,
        "input_file_id": file_id,
        "completion_window": f"{hours}h",
        "status": "validating",
        "output_file_id": None,
        "error_file_id": None,
        "created_at": created,
        "expires_at": created + hours * 3600,
        **{f"{status}_at": None for status in (*later, "cancelled")},
        "request_counts": {"total": 0, "completed": 0, "failed": 0},
        "metadata": dict(metadata) or None,
    }
