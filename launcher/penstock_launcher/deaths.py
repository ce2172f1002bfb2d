"""Children that ended although nobody asked them to, and which of them explains the others."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from dataclasses import dataclass

from penstock_launcher.child import Child, Role


@dataclass(frozen=True, slots=True)
class Death:
    """A child that ended although nobody asked it to."""

    child: Child
    code: int  # negative: minus the signal's number
    order: int  # the how-manieth death

    @property
    def killed(self) -> bool:
        """By a signal from outside; abort() is how libraries crash when a peer has died."""
        return self.code < 0 and self.code != -signal.SIGABRT

    @property
    def consequence(self) -> bool:
        """Of a router's end, and of nothing else."""
        return self.child.program.role is Role.SHARD and self.code == 0

    def describe(self) -> str:
        if self.code < 0:
            return f"{self.child.name} was killed by {_signal_name(-self.code)}"
        unasked = "" if self.code else ", although nobody asked it to end"
        return f"{self.child.name} ended with code {self.code}{unasked}"


def first_cause(deaths: Iterable[Death]) -> Death:
    """The death that explains the others.

    A process killed from outside explains everything; a failed shard takes its peers and the
    router along; a router takes the shards along, which then end with code 0.
    """

    def order(death: Death) -> tuple[int, int]:
        shard = death.child.program.role is Role.SHARD
        consequence = 0 if death.killed else 1 if shard and death.code else 2 if not shard else 3
        return consequence, death.order

    return min(deaths, key=order)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
