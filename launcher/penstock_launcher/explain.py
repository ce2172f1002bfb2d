"""What the variables of an environment mean to a launcher: `python -m penstock_launcher.explain`.

Reads an environment as JSON from standard input, and writes what it says as JSON: `penstock doctor`
asks, which is no part of the launcher.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

from penstock_launcher import hub_token
from penstock_launcher.options import OPTIONS, Option
from penstock_launcher.unsupported import TGI_VARIABLES, UNSUPPORTED, Unsupported
from penstock_launcher.variables import Reader

UNSET = "unset it"


@dataclass(frozen=True, slots=True)
class Meaning:
    """Of a variable. level: ok, warning, or failure where a launcher would refuse to start."""

    variable: str
    level: str
    what: str
    secret: bool = False
    advice: str = ""


def meanings(environ: Mapping[str, str]) -> Iterator[Meaning]:
    """Of each variable that is set and that a launcher reads, or that TGI read."""
    for option in OPTIONS:
        yield from _of_option(option, environ)
    yield from _of_hub(environ)
    for refused in UNSUPPORTED:
        for name in filter(environ.get, refused.variables):
            yield _of_refused(refused, name, environ[name])
    for name in filter(environ.get, TGI_VARIABLES):
        yield Meaning(name, "warning", "is TGI's and has no effect here", advice=UNSET)


def _of_option(option: Option, environ: Mapping[str, str]) -> Iterator[Meaning]:
    names = [name for name in (*option.overrides, *option.variables) if environ.get(name)]
    try:
        counts = Reader(environ).read(option)
    except ValueError as error:
        what = _without_name(str(error), names[0], environ)
        yield Meaning(names[0], "failure", what, option.secret, "mend or unset it")
        return
    for name in names:
        alone = Reader({name: environ[name]})
        given = alone.read(option)
        what = f"sets {option.flag}"
        if alone.notices:
            what = _without_name(alone.notices[0], name, environ)
        elif counts != given and counts is not None and counts.variable != name:
            what = f"gives way to {counts.variable}, or says the same"
        yield Meaning(name, "ok", what, option.secret)


def _without_name(sentence: str, name: str, environ: Mapping[str, str]) -> str:
    """A sentence of `Reader`'s, which begins with the variable."""
    rest = sentence.removeprefix(f"environment variable {name}")
    return rest.removeprefix(f"={environ[name]}").strip()


def _of_hub(environ: Mapping[str, str]) -> Iterator[Meaning]:
    counts = "is the token for models of the hub that ask for a login"
    for name in filter(environ.get, hub_token.VARIABLES):
        yield Meaning(name, "ok", counts, secret=True)
        counts = "gives way to the token before it"


def _of_refused(refused: Unsupported, name: str, text: str) -> Meaning:
    if text.lower() in refused.harmless:
        return Meaning(name, "ok", "asks for what is done anyway")
    return Meaning(name, "failure", f"{refused.flag} {refused.reason}", advice=UNSET)


def main() -> int:
    """The exit code."""
    print(json.dumps([asdict(meaning) for meaning in meanings(json.load(sys.stdin))]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
