"""OpenAI's batch format, as it comes in: a file of requests, one a line."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

LONGEST_LINE = 8 << 20  # bytes
LONGEST_ID = 512  # characters of a custom_id
ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/responses")


class BadLine(Exception):
    """A line that is no request. `code` is for programs, the message names field and rule."""

    def __init__(
        self, code: str, message: str, param: str | None = None, custom_id: str = ""
    ) -> None:
        super().__init__(message)
        self.code = code
        self.param = param
        self.custom_id = custom_id


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """One request of a batch."""

    custom_id: str
    url: str
    body: dict[str, Any]

    @classmethod
    def parse(cls, line: bytes, endpoint: str | None = None) -> BatchRequest:
        """Reads a line. endpoint: the only one that is allowed. Raises BadLine."""
        if len(line) > LONGEST_LINE:
            raise BadLine("line_too_long", f"the line has more than {LONGEST_LINE:,} bytes")
        try:
            entry = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise BadLine("invalid_json_line", f"the line is not JSON: {error}") from None
        if not isinstance(entry, dict):
            raise BadLine("invalid_json_line", "the line must be a JSON object")
        name = entry.get("custom_id")
        if not isinstance(name, str) or not 0 < len(name) <= LONGEST_ID:
            rule = f"`custom_id` must be a string of 1 to {LONGEST_ID} characters"
            raise BadLine("invalid_custom_id", rule, "custom_id")
        if entry.get("method", "POST") != "POST":
            raise BadLine("invalid_method", "`method` must be `POST`", "method", name)
        url, body = entry.get("url"), entry.get("body")
        allowed = ENDPOINTS if endpoint is None else (endpoint,)
        if not isinstance(url, str) or url not in allowed:
            rule = f"`url` must be {' or '.join(f'`{each}`' for each in allowed)}"
            raise BadLine("invalid_url", rule, "url", name)
        if not isinstance(body, dict):
            raise BadLine("invalid_body", "`body` must be a JSON object", "body", name)
        if body.get("stream"):
            raise BadLine("invalid_body", "`body.stream` must not be true", "body.stream", name)
        return cls(name, url, body)


def read_lines(path: Path) -> Iterator[bytes]:
    """The lines that are not blank, a long one cut where it is too long. Reads as it goes."""
    with path.open("rb") as file:
        while line := file.readline(LONGEST_LINE + 2):
            rest = line
            while rest and not rest.endswith(b"\n"):  # throw the rest of a long line away
                rest = file.readline(LONGEST_LINE)
            if line.strip():
                yield line


def fingerprint(custom_id: str) -> int:
    """64 bits of a name."""
    digest = hashlib.blake2b(custom_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")


@dataclass(frozen=True, slots=True)
class Survey:
    """What a file holds, seen once before it is run; eight bytes a line."""

    names: array[int]  # fingerprint of each line's custom_id; 0 where there is none
    repeated: frozenset[int]  # lines (from 0) whose custom_id an earlier line has

    @property
    def lines(self) -> int:
        return len(self.names)


def survey(path: Path, most_lines: int | None = None) -> Survey:
    """Reads through the file. Raises ValueError when it has more lines; OSError."""
    names = array("Q")
    for line in read_lines(path):
        if most_lines is not None and len(names) == most_lines:
            raise ValueError(f"a batch may have at most {most_lines:,} requests")
        try:
            names.append(fingerprint(BatchRequest.parse(line).custom_id))
        except BadLine as error:
            names.append(fingerprint(error.custom_id) if error.custom_id else 0)
    if not len(names):
        return Survey(names, frozenset())
    found, first = np.unique(np.asarray(names), return_index=True)
    if len(found) == len(names):
        return Survey(names, frozenset())
    firsts = set(first.tolist())
    return Survey(names, frozenset(i for i, name in enumerate(names) if name and i not in firsts))
