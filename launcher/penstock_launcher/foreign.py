"""Flags that the launcher does not take: what vLLM's and SGLang's mean here, or what was meant.

A flag that changes nothing here is left out, and the log says so. Any other one ends the start.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches

from penstock_launcher.migration import sglang, vllm
from penstock_launcher.migration.rows import OPTION, Row

SERVERS = (vllm.SERVER, sglang.SERVER)
MIGRATE = "penstock migrate translates the command lines of TGI, vLLM and SGLang"
ALIKE = 0.8  # of letters, from which on a flag is taken for a slip of the pen
STRAY = "the model is --model-id MODEL, or comes right behind `penstock serve`"


def leave_out(words: Sequence[str], known: Sequence[str]) -> list[str]:
    """Sentences about flags without effect. known: the launcher's own flags.

    Raises ValueError, with a sentence, for all other words.
    """
    notices, problems = [], []
    for flag, values, typed in _flags(words):
        server, row = _row(flag)
        if row is None or not _fits(row, values):
            problems.append(_unknown(flag, typed, known))
        elif values and all(value.lower() in row.neutral for value in values):
            continue
        elif row.option is not None:
            problems.append(f"{flag} of {server} is {OPTION[row.option].flag} here")
        elif row.served:
            notices.append(f"{flag} of {server} {row.note}")
        else:
            problems.append(f"{flag} of {server} {row.note}")
    if problems:
        raise ValueError("; ".join(problems))
    return notices


def _flags(words: Sequence[str]) -> Iterator[tuple[str, list[str], str]]:
    """Each flag with its values, and as it was typed; words in front of the first one alone."""
    rest = list(words)
    while rest:
        taken = [rest.pop(0)]
        flag, mark, text = taken[0].partition("=")
        while flag.startswith("-") and rest and not rest[0].startswith("-"):
            taken.append(rest.pop(0))
        yield flag, [text] * bool(mark) + taken[1:], " ".join(taken)


def _row(flag: str) -> tuple[str, Row | None]:
    rows = ((server.name, server.row(flag)) for server in SERVERS)
    return next(((name, row) for name, row in rows if row is not None), ("", None))


def _fits(row: Row, values: Sequence[str]) -> bool:
    if not row.takes_value:
        return not values
    return bool(values) if row.many else len(values) == 1


def _unknown(flag: str, typed: str, known: Sequence[str]) -> str:
    words = f"unrecognized arguments: {typed}"
    if not flag.startswith("-"):
        return f"{words} ({STRAY})"
    nearest = get_close_matches(flag.replace("_", "-"), known, 1, ALIKE)
    return f"{words}; did you mean {nearest[0]}?" if nearest else f"{words} ({MIGRATE})"
