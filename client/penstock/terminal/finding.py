"""What `penstock doctor` finds: one line each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """level: ok, warning or failure; advice: what to do, for the last two."""

    level: str
    subject: str
    what: str
    advice: str = ""
