"""`python -m tests.soak`: random traffic on a server of this machine, which it starts itself where
no --url names one.

Ends by itself, with exit code 1 when a request is not accounted for, a block is not free at rest,
or memory grew by more than --most-bytes a request.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TESTS = Path(__file__).parents[1]
if str(TESTS) not in sys.path:
    sys.path.insert(0, str(TESTS))

from tests.attack.target import Target, loopback  # noqa: E402
from tests.soak.memory import slope  # noqa: E402
from tests.soak.traffic import SHOWN, Account, soak  # noqa: E402

from support.server import running_server  # noqa: E402

FEW = 5_000  # requests, in which memory grows by what every part first needs
SERVER = ("--device", "cpu", "--num-shard", "1", "--http-processes", "2")  # of the demo model


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--url", help="a server on a loopback address (one of its own)")
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


@contextmanager
def target_of(url: str | None) -> Iterator[Target]:
    """The server that is named, or one that runs as long as it is needed."""
    if url is not None:
        yield loopback(url)
        return
    with (
        tempfile.TemporaryDirectory(prefix="penstock-soak-") as folder,
        running_server(Path(folder), *SERVER) as server,
    ):
        yield loopback(server.url)


def main() -> int:
    given = arguments()
    with target_of(given.url) as target:
        account = asyncio.run(soak(target, given.seconds, given.clients, given.seed))
    grown = slope(account.samples)
    report(account, grown)
    grows = grown > given.most_bytes
    if grows and account.sent.total() < FEW:
        print(f"no fault yet: memory still settles in the first {FEW} requests")
        grows = False
    elif grows:
        print(f"FAULT memory grows by more than {given.most_bytes:g} bytes a request")
    return 1 if account.faults or grows else 0


if __name__ == "__main__":
    sys.exit(main())
