"""What differs between two answers to one request.

Compared are status, headers, shape (which fields there are, of which types) and, of greedy
requests, values. What differs from call to call anyhow is left out: ids, times, sentences of
errors. A field that is null counts as one that is absent, as clients read it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from penstock.replay.answers import Answer
from penstock.replay.streams import joined

# of connections, and what differs from call to call
SILENT_HEADERS = {
    "connection", "content-encoding", "content-length", "date", "keep-alive", "server",
    "transfer-encoding", "vary", "x-request-id",
}  # fmt: skip
COMPARED_HEADERS = {"access-control-allow-origin", "content-type", "retry-after"}  # values too
VOLATILE = re.compile(
    r"(.*_)?id|created(_at)?|completed_at|.*time(s|stamp)?|.*duration|.*_ms|seed|version|.*sha|"
    r"docker_label|system_fingerprint|message|error|model|cached_tokens|memory_used"
)
METRIC = re.compile(r"^# TYPE (\S+)", re.MULTILINE)
CLOSE = 0.05  # between log-probabilities of two servers
ABSENT = "absent"
CONTEXT = 12  # characters before the first that differs


@dataclass(frozen=True, slots=True)
class Difference:
    """what: `status`, `header NAME`, or the path of a field."""

    what: str
    first: str
    second: str

    def named(self) -> dict[str, str]:
        return {"what": self.what, "first": self.first, "second": self.second}


def differences(first: Answer, second: Answer, *, values: bool) -> Iterator[Difference]:
    """values: whether the two should say the same."""
    if first.status != second.status:
        yield Difference("status", _status(first), _status(second))
        return
    yield from _headers(first.headers, second.headers)
    if (first.events is None) != (second.events is None):
        kinds = ["a stream" if one.events is not None else "whole" for one in (first, second)]
        yield Difference("answer", *kinds)
        return
    yield from _bodies(_content(first), _content(second), values and first.status == 200)


def _status(answer: Answer) -> str:
    if answer.status < 400:
        return str(answer.status)
    body = answer.body if isinstance(answer.body, Mapping) else {}
    error = body.get("error", body.get("message", body.get("detail", answer.body)))
    if isinstance(error, Mapping):
        error = error.get("message", error)
    return f"{answer.status}: {' '.join(str(error).split())}"


def _headers(first: Mapping[str, str], second: Mapping[str, str]) -> Iterator[Difference]:
    for name in sorted((first.keys() | second.keys()) - SILENT_HEADERS):
        one, other = first.get(name), second.get(name)
        if one is None or other is None:
            yield Difference(f"header {name}", one or ABSENT, other or ABSENT)
        elif name in COMPARED_HEADERS and _plain(one) != _plain(other):
            yield Difference(f"header {name}", one, other)


def _plain(value: str) -> str:
    return value.lower().replace(" ", "").removesuffix(";charset=utf-8")


def _content(answer: Answer) -> Any:
    if answer.events is not None:
        return joined(answer.events)
    if isinstance(answer.body, str) and (names := METRIC.findall(answer.body)):
        return {"metrics": dict.fromkeys(names, "")}  # their values are chance
    return answer.body


def _bodies(first: Any, second: Any, values: bool) -> Iterator[Difference]:
    one, other = leaves(first), leaves(second)
    for path in [*one, *(path for path in other if path not in one)]:
        mine, others = one.get(path, []), other.get(path, [])
        kinds, other_kinds = _kinds(mine), _kinds(others)
        if kinds != other_kinds:
            if _is_whole(path, one, other):
                yield Difference(path or "body", kinds or ABSENT, other_kinds or ABSENT)
        elif values and not VOLATILE.fullmatch(path.rpartition(".")[2].rstrip("[]")):
            yield from _values(path or "body", mine, others)


def _is_whole(path: str, one: Mapping[str, list[Any]], other: Mapping[str, list[Any]]) -> bool:
    """Whether no field around this one is absent too, which says it already."""
    parents = [path[: match.start()] for match in re.finditer(r"\.|\[\]", path)]
    return all((parent in one) == (parent in other) for parent in parents)


def _values(path: str, first: list[Any], second: list[Any]) -> Iterator[Difference]:
    if len(first) != len(second):
        yield Difference(f"number of {path}", str(len(first)), str(len(second)))
        return
    for mine, others in zip(first, second, strict=True):
        if isinstance(mine, float) or isinstance(others, float):
            alike = abs(mine - others) <= CLOSE
        else:
            alike = mine == others
        if not alike:
            yield Difference(path, *_excerpts(str(mine), str(others)))
            return


def _excerpts(first: str, second: str) -> tuple[str, str]:
    """From a little before where they part."""
    pairs = zip(first, second, strict=False)
    same = next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))
    cut = max(same - CONTEXT, 0)
    lead = "…" if cut else ""
    return lead + first[cut:], lead + second[cut:]


def leaves(value: Any, path: str = "") -> dict[str, list[Any]]:
    """Path of each field -> its values, in order; of an object or a list an empty one of its kind.

    Raises nothing: what is nested too deep for that was no JSON to begin with.
    """
    found: dict[str, list[Any]] = {}

    def walk(one: Any, at: str) -> None:
        if one is None:
            return
        kept = type(one)() if isinstance(one, dict | list) else one
        found.setdefault(at, []).append(kept)
        if isinstance(one, dict):
            for name, field in one.items():
                walk(field, f"{at}.{name}" if at else name)
        elif isinstance(one, list):
            for item in one:
                walk(item, f"{at}[]")

    walk(value, path)
    return found


def _kinds(values: list[Any]) -> str:
    names = {_kind(value) for value in values}
    return " or ".join(sorted(names))


def _kind(value: Any) -> str:
    match value:
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "text"
        case list():
            return "list"
        case _:
            return "object"
