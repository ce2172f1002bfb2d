"""`python -m tests.soak --url http://127.0.0.1:3000`: random traffic on a server of this machine.

Ends by itself, with exit code 1 when a request is not accounted for, a block is not free at rest,
or memory grew by more than --most-bytes a request.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from tests.attack.target import loopback
from tests.soak.memory import slope
from tests.soak.traffic import SHOWN, Account, soak


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--url", required=True, help="a server on a loopback address")
    parser.add_argument("--seconds", type=float, default=1800.0)
    parser.add_argument("--clients", type=int, default=24, help="that ask one request at a time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--most-bytes", type=float, default=1024.0, help="that memory may grow a request"
    )
    return parser.parse_args()


def report(account: Account, grown: float) -> None:
    for (kind, end), count in sorted(account.ended.items()):
        print(f"{kind:14} {end:12} {count:8}")
    print(f"{account.sent.total()} requests, {len(account.wrong)} of them not as they should")
    if account.samples:
        first, last = account.samples[0][1], account.samples[-1][1]
        print(f"RssAnon + VmSwap: {first / 2**20:.1f} to {last / 2**20:.1f} MiB,", end=" ")
        print(f"{grown:.0f} bytes a request in the last two thirds")
    for line in account.faults[:SHOWN]:
        print(f"FAULT {line}")


def main() -> int:
    given = arguments()
    account = asyncio.run(soak(loopback(given.url), given.seconds, given.clients, given.seed))
    grown = slope(account.samples)
    report(account, grown)
    return 1 if account.faults or grown > given.most_bytes else 0


if __name__ == "__main__":
    sys.exit(main())
