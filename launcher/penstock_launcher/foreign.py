"""Flags that the launcher does not take: what vLLM's and SGLang's mean here, or what was meant.

One that is called otherwise here is read as that, one that changes nothing is left out, and the log
says so. Any other one ends the start.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from difflib import get_close_matches

from penstock_launcher.migration import sglang, vllm
from penstock_launcher.migration.arguments import translate
from penstock_launcher.migration.rows import OPTION, Row, Server

SERVERS = (vllm.SERVER, sglang.SERVER)
MIGRATE = "penstock migrate translates the command lines of TGI, vLLM and SGLang"
ALIKE = 0.8  # of letters, from which on a flag is taken for a slip of the pen
STRAY = "the model is --model-id MODEL, or comes right behind `penstock serve`"


def is_known(flag: str) -> bool:
    """Whether vLLM or SGLang has it."""
    return _row(flag)[1] is not None


def understand(
    words: Sequence[str], known: Sequence[str], given: Collection[str]
) -> tuple[list[str], list[str]]:
    """What the launcher is told instead, and sentences for the log.

    known: the launcher's own flags. given: fields of Options that these have set. Raises
    ValueError, with a sentence, for what is not served, said twice or known to nobody.
    """
    translated, notices, problems = list[str](), list[str](), list[str]()
    options = set(given)
    for flag, values, typed in _flags(words):
        server, row = _row(flag)
        if row is None or not _fits(row, values):
            problems.append(_unknown(flag, typed, known))
        elif values and all(value.lower() in row.neutral for value in values):
            continue
        elif row.option is None:
            (notices if row.served else problems).append(f"{flag} of {server.name} {row.note}")
        elif row.option in options:
            own = OPTION[row.option].flag
            problems.append(f"{flag} and {own} say the same: give one of them")
        else:
            options.add(row.option)
            result = translate(server, [flag, *values])
            problems += [str(note) for note in result.notes if not note.served]
            notices.append(f"{flag} of {server.name} is {OPTION[row.option].flag} here")
            translated += result.words()
    if problems:
        raise ValueError("; ".join(problems))
    return translated, notices


def _flags(words: Sequence[str]) -> Iterator[tuple[str, list[str], str]]:
    """Each flag with its values, and as it was typed; words in front of the first one alone."""
    rest = list(words)
    while rest:
        taken = [rest.pop(0)]
        flag, mark, text = taken[0].partition("=")
        while flag.startswith("-") and rest and not rest[0].startswith("-"):
            taken.append(rest.pop(0))
        yield flag, [text] * bool(mark) + taken[1:], " ".join(taken)


def _row(flag: str) -> tuple[Server, Row | None]:
    rows = ((server, server.row(flag)) for server in SERVERS)
    return next((found for found in rows if found[1] is not None), (SERVERS[0], None))


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
