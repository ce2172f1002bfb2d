"""What was fetched from buckets, beside what the hub's library keeps, and laid out as that does.

models--s3--<name>-<hash>/blobs/<etag>-<size>, and .incomplete behind it while it comes
models--s3--<name>-<hash>/snapshots/<fingerprint>/<file> -> ../../blobs/…
models--s3--<name>-<hash>/refs/main: the latest fingerprint
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

MD5 = re.compile(r"[0-9a-f]{32}")
CHUNK = 1 << 20


class Damaged(Exception):
    """What came is not what the bucket said it would be."""


@dataclass(frozen=True, slots=True)
class SavedObject:
    """An object of a bucket. etag: without its quotes."""

    name: str  # of the file
    key: str
    etag: str
    size: int

    @property
    def blob(self) -> str:
        """A name for its content; tags may hold anything."""
        plain = re.fullmatch(r"[0-9a-f]{32}(-\d{1,6})?", self.etag)
        return f"{self.etag if plain else _short_hash(self.etag)}-{self.size}"


class Part:
    """A blob that comes; `size` bytes of it are there."""

    def __init__(self, file: IO[bytes], wanted: SavedObject) -> None:
        self._file = file
        self._wanted = wanted
        self.encrypted = False  # with a key of the customer's: then the tag is no MD5
        self.size = file.seek(0, os.SEEK_END)
        if self.size > wanted.size:
            file.truncate(0)
            self.size = file.seek(0)

    def write(self, data: bytes) -> None:
        """Raises Damaged where more comes than there should be."""
        if self.size + len(data) > self._wanted.size:
            raise Damaged(f"{self._wanted.name} has more bytes than the bucket lists")
        self._file.write(data)
        self.size += len(data)

    def check(self) -> None:
        """All of it has come, and it is what the tag says, where that is a hash.

        Raises Damaged; then nothing is left to go on with.
        """
        self._file.flush()
        os.fsync(self._file.fileno())
        wanted, problem = self._wanted, ""
        if self.size != wanted.size:
            problem = f"{self.size:,} of {wanted.size:,} bytes came"
        elif MD5.fullmatch(wanted.etag) and not self.encrypted and self._md5() != wanted.etag:
            problem = "its MD5 is not what the bucket says"
        if problem:
            self._file.truncate(0)
            raise Damaged(f"{wanted.name} is damaged: {problem}")

    def _md5(self) -> str:
        digest = hashlib.md5(usedforsecurity=False)
        self._file.seek(0)
        while data := self._file.read(CHUNK):
            digest.update(data)
        return digest.hexdigest()


class Cache:
    """The part of the cache that is one URL's."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def of(cls, url: str, folder: str | None) -> Cache:
        """folder: of the whole cache; None: where the hub's library has its own."""
        home = Path(folder).expanduser() if folder else hub_cache()
        readable = re.sub(r"[^A-Za-z0-9.-]+", "-", url.removeprefix("s3://"))[:80].strip("-.")
        return cls(home / f"models--s3--{readable}-{_short_hash(url)[:12]}")

    @contextlib.contextmanager
    def part(self, wanted: SavedObject) -> Iterator[Part | None]:
        """The blob while it comes, this process's alone; None where it is there already.

        A blob that was checked gets its name when the block ends.
        """
        blobs = self.root / "blobs"
        blobs.mkdir(parents=True, exist_ok=True)
        blob, coming = blobs / wanted.blob, blobs / f"{wanted.blob}.incomplete"
        with coming.open("ab+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # another launcher may fetch the same
            if blob.exists() and blob.stat().st_size == wanted.size:
                coming.unlink(missing_ok=True)
                yield None
                return
            yield Part(file, wanted)
            os.replace(coming, blob)

    def publish(self, objects: Sequence[SavedObject]) -> Path:
        """A folder with these files, which is there as a whole or not at all."""
        told = "\n".join(sorted(f"{each.name} {each.blob}" for each in objects))
        fingerprint = hashlib.sha1(told.encode(), usedforsecurity=False).hexdigest()
        folder = self.root / "snapshots" / fingerprint
        if not folder.exists():
            fresh = folder.parent / f".{fingerprint}-{os.getpid()}"
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
            for each in objects:
                (fresh / each.name).symlink_to(Path("../../blobs") / each.blob)
            try:
                fresh.rename(folder)
            except OSError:  # another launcher was quicker
                shutil.rmtree(fresh)
        refs = self.root / "refs"
        refs.mkdir(exist_ok=True)
        (refs / "main").write_text(fingerprint)
        return folder

    def latest(self) -> Path | None:
        """The folder that was complete the last time; None where there is none."""
        try:
            name = (self.root / "refs" / "main").read_text().strip()
        except OSError:
            return None
        folder = self.root / "snapshots" / name
        if not re.fullmatch(r"[0-9a-f]{40}", name) or not folder.is_dir():
            return None
        return folder if all(path.exists() for path in folder.iterdir()) else None


def hub_cache() -> Path:
    """Where the hub's library keeps models, by its variables."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if path := os.environ.get(name):
            return Path(path).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{cache}/huggingface"
    return Path(home).expanduser() / "hub"


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:40]
