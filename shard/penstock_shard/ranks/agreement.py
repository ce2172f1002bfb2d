"""Memory that all ranks of a group have, or none of them goes on.

A rank whose allocation fails between two collectives leaves the others waiting in the second. So
what can be allocated before the first is, and the ranks tell each other whether it went well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from penstock_shard import log
from penstock_shard.memory.out_of_memory import give_back, is_out_of_memory
from penstock_shard.ranks.parallel import Group

Made = TypeVar("Made")


class NoMemory(MemoryError):
    """Some rank has too little, and every rank knows."""


def allocated(group: Group, device: torch.device, make: Callable[[], Made]) -> Made:
    """What `make` allocates, in which there is no collective. A collective.

    Raises NoMemory on every rank where an allocation fails on one, and what else `make` raises.
    """
    made: Made | None = None
    problem = "another rank has too little memory"
    try:
        made = make()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        problem = str(error).partition("\n")[0] or "out of memory"
    able = group.minimum(int(made is not None), device)
    if not able or made is None:
        made = None  # else it lives as long as the error
        raise NoMemory(problem)
    return made


def alone(group: Group, device: torch.device, work: Callable[[], Made]) -> Made | None:
    """What one rank does between two collectives and no other does. None: there was no memory for
    it; the others do not notice, as it still takes part in the next collective."""
    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        if group.world_size == 1 or not is_out_of_memory(error):
            raise
        log.warning(f"no memory for what a step computed: {error}")
    give_back(device)
    return None


def check_room(group: Group, device: torch.device, size: int) -> None:
    """Raises NoMemory on every rank where one cannot allocate so many bytes. A collective."""
    allocated(group, device, lambda: torch.empty(size, dtype=torch.uint8, device=device))
