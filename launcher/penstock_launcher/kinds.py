"""What values an option takes: how text becomes a value, and the rule that it must follow."""

from __future__ import annotations

import ipaddress
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

Number = TypeVar("Number", int, float)
ROUTE = re.compile(r"(/[A-Za-z0-9._~:@-]+)+")


@dataclass(frozen=True, slots=True)
class Kind:
    """`parse` raises ValueError for text that breaks `rule`; the caller names option and value."""

    metavar: str
    rule: str  # completes "must be …"
    parse: Callable[[str], object]
    takes_value: bool = True  # False: naming the option on the command line means true
    repeated: bool = False
    separator: str | None = None  # of several values in one text; None: there is one
    counts: bool = False  # whole numbers

    def values(self, text: str) -> list[object]:
        """What one text says of an option that is repeated. Raises ValueError."""
        parts = [text] if self.separator is None else text.split(self.separator)
        return [self.parse(part.strip()) for part in parts]


def integer(low: int, high: int, unit: str = "") -> Kind:
    """A whole number, both ends allowed. unit: of what, for a rule that else invites `10GiB`."""

    def parse(text: str) -> int:
        if not text.removeprefix("-").isascii() or not text.removeprefix("-").isdigit():
            raise ValueError  # int() would take "1_000" and " 7 "
        return _between(int(text), low, high)

    of = f" of {unit}" if unit else ""
    return Kind("N", f"a whole number{of} from {low} to {high}", parse, counts=True)


TOKENS = integer(1, 100_000_000)
COUNT = integer(1, 1_000_000)


def number(low: float, high: float, *, above: bool = False) -> Kind:
    """A finite number from low to high; `above` excludes low itself."""

    def parse(text: str) -> float:
        value = _between(float(text), low, high)
        if above and value == low:
            raise ValueError
        return value

    rule = f"above {low:g} and at most {high:g}" if above else f"from {low:g} to {high:g}"
    return Kind("X", f"a number {rule}", parse)


def text() -> Kind:
    """Any text but the empty one, without control characters."""

    def parse(value: str) -> str:
        if not value or not value.isprintable():
            raise ValueError
        return value

    return Kind("TEXT", "printable text", parse)


def path() -> Kind:
    return Kind("PATH", "a path", text().parse)


def route() -> Kind:
    """The path of a URL, without a query and without anything that would have to be escaped."""

    def parse(value: str) -> str:
        if not ROUTE.fullmatch(value):
            raise ValueError
        return value

    return Kind("PATH", "a path such as /predict, of letters, digits and -._~:@/", parse)


def one_of(
    *choices: str, any_case: bool = False, names: Mapping[str, str | None] | None = None
) -> Kind:
    """`names`: further ones, and the choice that each stands for; None: the default."""
    meanings: dict[str, str | None] = {**dict.fromkeys(choices), **(names or {})}
    meanings.update((choice, choice) for choice in choices)

    def parse(value: str) -> str | None:
        value = value.lower() if any_case else value
        if value not in meanings:
            raise ValueError
        return meanings[value]

    return Kind("{" + ",".join(meanings) + "}", "one of " + ", ".join(meanings), parse)


def address() -> Kind:
    def parse(value: str) -> str:
        return str(ipaddress.ip_address(value))

    return Kind("IP", "an IP address such as 0.0.0.0 or 127.0.0.1", parse)


def network() -> Kind:
    """An address, or a network of them."""

    def parse(value: str) -> str:
        return str(ipaddress.ip_network(value))

    return Kind("IP|CIDR", "an IP address or a network such as 10.0.0.0/8", parse)


def boolean() -> Kind:
    """`--name true` or `--name false`."""
    return Kind("{true,false}", "true or false", _truth)


def switch() -> Kind:
    """`--name` alone; in the environment true or false."""
    return Kind("", "true or false", _truth, takes_value=False)


def json_object() -> Kind:
    """An object of JSON: names and values."""

    def parse(value: str) -> dict[str, Any]:
        try:
            found = json.loads(value, parse_constant=_no_number)
        except RecursionError:
            raise ValueError from None
        if not isinstance(found, dict):
            raise ValueError
        return found

    return Kind("JSON", 'a JSON object such as {"name": 1}', parse)


def object_or(*names: str) -> Kind:
    """An object of JSON, or one of some names."""
    name, entries = one_of(*names), json_object()

    def parse(value: str) -> object:
        return (entries if value.lstrip().startswith("{") else name).parse(value)

    metavar = "{" + ",".join((*names, entries.metavar)) + "}"
    return Kind(metavar, f"{name.rule}, or {entries.rule}", parse)


def many(kind: Kind, separator: str | None = ",") -> Kind:
    """Repeated on the command line; there and in the environment, several in one text."""
    return Kind(kind.metavar, kind.rule, kind.parse, repeated=True, separator=separator)


def sizes(high: int) -> Kind:
    """Whole numbers separated by commas, on the command line too."""
    one = integer(0, high)

    def parse(text: str) -> tuple[object, ...]:
        return tuple(one.parse(part.strip()) for part in text.split(","))

    return Kind("N,N,…", f"whole numbers from 0 to {high} separated by commas", parse)


def _no_number(text: str) -> None:
    """JSON has neither NaN nor infinities, which Python reads all the same."""
    raise ValueError(text)


def _between(value: Number, low: Number, high: Number) -> Number:
    if not (math.isfinite(value) and low <= value <= high):
        raise ValueError
    return value


def _truth(value: str) -> bool:
    if value.lower() in ("true", "1", "yes", "on"):
        return True
    if value.lower() in ("false", "0", "no", "off"):
        return False
    raise ValueError
