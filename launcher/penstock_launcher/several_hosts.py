"""What differs in a start where one model is served by several hosts."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock_launcher.child import Program
from penstock_launcher.configs import DEFAULT_MASTER, SHARD_OPTIONS, Plan, shard_program
from penstock_launcher.host_keys import host_keys, host_name
from penstock_launcher.host_place import Place
from penstock_launcher.hosts import Follower, Leader
from penstock_launcher.logs import Log
from penstock_launcher.model import Model
from penstock_launcher.options import Options
from penstock_launcher.supervisor import Supervisor


@dataclass(frozen=True, slots=True)
class Run:
    """What is to be started."""

    supervisor: Supervisor
    plan: Plan
    model: Model
    folder: Path
    log: Log

    def shard_programs(
        self, address: str = "", keys: dict[str, str] | None = None
    ) -> list[Program]:
        """Those of this host. address: where they listen, for a router on another host."""
        return [
            shard_program(self.plan, self.model, self.folder, rank, listen)
            for rank, listen in self._listens(address, keys)
        ]

    def _listens(
        self, address: str, keys: dict[str, str] | None
    ) -> Iterator[tuple[int, dict[str, str] | None]]:
        place = self.plan.place
        for rank in self.plan.local_ranks:
            if place is None or keys is None:
                yield rank, None
            else:
                yield rank, {"address": _joined(address, place.shard_port(rank)), **keys}


def place_of(options: Options, shards: int) -> Place | None:
    """Of this host; None where it is alone."""
    if options.nnodes == 1:
        return None
    assert options.master_addr is not None
    return Place(
        nnodes=options.nnodes,
        node_rank=options.node_rank,
        address=options.master_addr,
        port=options.master_port or DEFAULT_MASTER[1],
        shards=shards,
    )


async def meet(
    plan: Plan, folder: Path, supervisor: Supervisor, log: Log
) -> Leader | Follower | None:
    """Prepare to meet the other hosts; None where there are none."""
    if (place := plan.place) is None:
        return None
    keys = host_keys(plan.options, folder)
    hosts: Leader | Follower = (Follower if place.node_rank else Leader)(place, keys, log)
    if isinstance(hosts, Leader):
        await hosts.listen()
    supervisor.join(hosts)
    return hosts


async def lead(run: Run, hosts: Leader) -> list[str]:
    """Wait for the other hosts, and let them begin; where their shards will be."""
    addresses = await hosts.gather(served(run))
    place = hosts.place
    return [
        f"{host_name(node)}@{_joined(address, place.shard_port(rank))}"
        for node, address in sorted(addresses.items())
        for rank in place.ranks_of(node)
    ]


async def follow(run: Run, hosts: Follower) -> None:
    """Serve shards to host 0."""
    address = await hosts.join(served(run))
    programs = run.shard_programs(address, hosts.keys.config())
    await run.supervisor.ready([run.supervisor.start(program) for program in programs])
    ranks = run.plan.local_ranks
    run.log.info(
        f"Penstock host {hosts.place.node_rank} ready: shards {ranks[0]} to {ranks[-1]} of "
        f"{run.plan.shards}, for host 0 at {hosts.place.address}"
    )


def served(run: Run) -> dict[str, Any]:
    """What hosts must have in common."""
    options = run.plan.options
    return {
        "version": importlib.metadata.version("penstock"),
        "nnodes": options.nnodes,
        "num_shard": run.plan.shards,
        "model": fingerprint(run.model.path),
        **{name: getattr(options, name) for name in SHARD_OPTIONS},
    }


def fingerprint(folder: Path) -> str:
    """Of a model: its configuration, and the sizes of its weights."""
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(f"{path.name} {path.stat().st_size}\n".encode())
    return digest.hexdigest()[:16]


def _joined(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
