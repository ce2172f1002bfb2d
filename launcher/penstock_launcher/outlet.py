"""The launcher's standard descriptors, of which each may be missing."""

from __future__ import annotations

import os
import sys

from penstock_proto.outlet import Outlet


def standard_output() -> Outlet | None:
    """None where the launcher was started without one."""
    return Outlet(sys.stdout.fileno()) if sys.stdout else None


def open_standard_descriptors() -> None:
    """Have /dev/null stand for those that the launcher was started without.

    Else the next file that is opened is a standard one by its number, and children, which get
    standard ones of their own, lose a socket or a pipe that they were to inherit.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
