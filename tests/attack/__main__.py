"""`python -m tests.attack --url http://127.0.0.1:3000`: attacks a server of this machine.

Ends by itself, with exit code 1 when something fell short.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.attack import report
from tests.attack.attacks import ATTACKS, Attack
from tests.attack.campaign import Outcome, campaign
from tests.attack.target import Target, loopback


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.attack", description=__doc__)
    parser.add_argument("--url", required=True, help="a server on a loopback address")
    parser.add_argument("--seconds", type=float, default=120.0, help="for the whole campaign")
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="attacks by name, or by the beginning of it"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured to it")
    return parser.parse_args()


def chosen(names: Sequence[str] | None) -> list[Attack]:
    """The attacks whose id begins with one of the names; all without names."""
    attacks = [a for a in ATTACKS if not names or a.id.startswith(tuple(names))]
    if not attacks:
        raise ValueError(f"there is no such attack; there are {', '.join(a.id for a in ATTACKS)}")
    return attacks


async def attack(target: Target, attacks: Sequence[Attack], seconds: float) -> list[Outcome]:
    """Run, and print each row as soon as it is known."""
    outcomes: list[Outcome] = []
    print(report.HEAD)
    async for outcome in campaign(target, attacks, seconds):
        outcomes.append(outcome)
        report.note_lateness(outcome, outcomes[0].song)
        print(report.row(outcome, outcomes[0].song), flush=True)
    return outcomes


def main() -> int:
    options = arguments()
    try:
        target, attacks = loopback(options.url), chosen(options.only)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    outcomes = asyncio.run(attack(target, attacks, options.seconds))
    if options.json:
        options.json.write_text(json.dumps(report.as_json(outcomes), indent=1) + "\n")
    short = [o.attack.id for o in outcomes if o.short]
    print(
        f"{len(outcomes) - len(short)} of {len(outcomes)} hold"
        + f"; short: {', '.join(short)}" * bool(short)
    )
    return bool(short)


if __name__ == "__main__":
    sys.exit(main())
