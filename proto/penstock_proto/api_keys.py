"""API keys as the launcher tells them to the router, and the router to what serves HTTP.

A plain key is its text. One with a name or limits is an object with the fields of `ApiKey`, those
left out that say nothing; of its key and the SHA-256 of it one is there.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

KeyItem = str | Mapping[str, Any]  # as JSON has it

UNNAMED = "unnamed"  # what keys without a name are called together


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """One key. Limits are None where there is none."""

    name: str = UNNAMED
    key: str | None = None  # None: only its digest is known
    sha256: str  # of its UTF-8, in hexadecimal digits
    salt: str | None = None  # keys with the same share cached prefixes; None: the key's own
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None
    max_priority: int | None = None

    @property
    def limited(self) -> bool:
        """Its requests have to be asked for."""
        limits = self.requests_per_minute, self.tokens_per_minute, self.concurrent_requests
        return any(limit is not None for limit in limits)

    @classmethod
    def of(cls, item: KeyItem) -> Self:
        """Raises TypeError for fields that do not exist."""
        if isinstance(item, str):
            return cls(key=item, sha256=digest_of(item))
        known = {"sha256": digest_of(item["key"])} if "key" in item else {}
        return cls(**known | item)

    def item(self) -> KeyItem:
        """What `of` makes the same key of."""
        unset = {field.name: field.default for field in dataclasses.fields(self)}
        said = {
            name: value
            for name, value in dataclasses.asdict(self).items()
            if value != unset[name] and not (name == "sha256" and self.key is not None)
        }
        return self.key if self.key is not None and said.keys() == {"key"} else said


def digest_of(key: str) -> str:
    """The SHA-256 of a key, in hexadecimal digits; any text that a header may hold."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
