"""Launchers of several hosts, in one event loop: who is let in, and who hears of what."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from penstock_launcher import host_link
from penstock_launcher.certificates import Pair, authority, issue
from penstock_launcher.checks import check
from penstock_launcher.devices import num_shards
from penstock_launcher.errors import LauncherError
from penstock_launcher.host_keys import HostKeys, host_keys, host_name
from penstock_launcher.host_place import Place
from penstock_launcher.hosts import Follower, Hosts, Leader, difference
from penstock_launcher.options import Options

SERVED = {"model": "abc", "dtype": None, "num_shard": 4}
PLACE = Place(nnodes=2, node_rank=0, address="127.0.0.1", port=0, shards=4)


class Log:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, line: str, **fields: object) -> None:
        self.lines.append(line)

    warning = info


@pytest.fixture
def signer() -> Pair:
    return authority("test")


def keys(signer: Pair, folder: Path, rank: int, name: str | None = None) -> HostKeys:
    folder = folder / f"{rank}-{name}"
    folder.mkdir()
    found = HostKeys(folder / "host.pem", folder / "host.key", folder / "ca.pem")
    issue(signer, "host", [name or host_name(rank)]).write(found.certificate, found.key)
    found.authorities.write_bytes(signer.certificate)
    return found


def free_place() -> Place:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return replace(PLACE, port=listener.getsockname()[1] - 1)


@contextlib.asynccontextmanager
async def two(signer: Pair, folder: Path, **theirs: Any) -> AsyncIterator[tuple[Leader, Follower]]:
    """Joined. theirs: what the follower serves otherwise."""
    place = free_place()
    leader = Leader(place, keys(signer, folder, 0), Log())  # type: ignore[arg-type]
    follower = Follower(replace(place, node_rank=1), keys(signer, folder, 1), Log())  # type: ignore[arg-type]
    await leader.listen()
    try:
        async with asyncio.timeout(60):
            joining = asyncio.ensure_future(follower.join({**SERVED, **theirs}))
            try:
                assert await leader.gather(SERVED) == {1: "127.0.0.1"}
            except LauncherError:
                with pytest.raises(LauncherError):
                    await joining
                raise
            assert await joining == "127.0.0.1"
        yield leader, follower
    finally:
        await follower.close()
        await leader.close()


async def heard(hosts: Hosts) -> str:
    with pytest.raises(LauncherError) as error:
        async with asyncio.timeout(60):
            await hosts.watch()
    return str(error.value)


async def test_failures_are_told_both_ways(signer: Pair, tmp_path: Path) -> None:
    async with two(signer, tmp_path) as (leader, follower):
        await follower.failed("shard 2 was killed by SIGKILL")
        assert await heard(leader) == "host 1 (127.0.0.1): shard 2 was killed by SIGKILL"
        assert await leader.cause("") == "host 1 (127.0.0.1): shard 2 was killed by SIGKILL"
    (tmp_path / "again").mkdir()
    async with two(signer, tmp_path / "again") as (leader, follower):
        await leader.failed("router ended with code 1")
        assert await heard(follower) == "host 0 (127.0.0.1): router ended with code 1"


async def test_who_closes_is_lost_and_who_drains_is_not(signer: Pair, tmp_path: Path) -> None:
    async with two(signer, tmp_path) as (leader, follower):
        drains = asyncio.get_running_loop().create_future()
        follower.on_drain = drains.set_result
        leader.drain()
        assert await asyncio.wait_for(drains, 60) == "host 0 (127.0.0.1)"
        follower.drain()
        await follower.close()
        await asyncio.sleep(0.05)
        assert await leader.cause("") is None
    (tmp_path / "again").mkdir()
    async with two(signer, tmp_path / "again") as (leader, follower):
        await follower.close()
        words = "host 1 (127.0.0.1) is lost: its launcher closed the connection"
        assert await heard(leader) == words


async def test_who_says_nothing_is_lost(
    signer: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its connection does."""
    monkeypatch.setattr(host_link, "BEAT_SECONDS", 0.02)
    async with two(signer, tmp_path) as (leader, follower):
        await asyncio.sleep(0.5)
        assert await leader.cause("") is None
        for link in follower._links.values():
            link.send = lambda message: None  # type: ignore[method-assign]
        assert "is lost: its launcher has said nothing for 10 s" in await heard(leader)


async def test_hosts_that_serve_other_things(signer: Pair, tmp_path: Path) -> None:
    with pytest.raises(LauncherError, match="serves another thing: dtype is bfloat16 there and"):
        async with two(signer, tmp_path, dtype="bfloat16"):
            pass
    assert difference({"a": 1}, {"a": 1}) == ""
    assert difference({"a": 1}, {"b": 2}) == "a is None there and 1 here"


@pytest.mark.parametrize(
    ("rank", "name", "words"),
    [
        (1, "penstock-host-2", "its certificate is for penstock-host-2, not for penstock-host-1"),
        (2, None, "--node-rank 2 is none of 2 hosts"),
    ],
)
async def test_a_certificate_says_which_host(
    signer: Pair, tmp_path: Path, rank: int, name: str | None, words: str
) -> None:
    place = free_place()
    leader = Leader(place, keys(signer, tmp_path, 0), Log())  # type: ignore[arg-type]
    await leader.listen()
    own = keys(signer, tmp_path, rank, name)
    follower = Follower(replace(place, node_rank=rank), own, Log())  # type: ignore[arg-type]
    with pytest.raises(LauncherError, match=words):
        await asyncio.wait_for(follower.join(SERVED), 60)
    await follower.close()
    await leader.close()


async def test_another_authority_is_none_of_the_group(signer: Pair, tmp_path: Path) -> None:
    place = free_place()
    leader = Leader(place, keys(signer, tmp_path, 0), Log())  # type: ignore[arg-type]
    await leader.listen()
    stranger = Follower(
        replace(place, node_rank=1),
        keys(authority("other"), tmp_path, 1),
        Log(),  # type: ignore[arg-type]
    )
    with pytest.raises(LauncherError, match="host 0 at 127.0.0.1 port .* is none of this group"):
        await asyncio.wait_for(stranger.join(SERVED), 60)
    assert not leader._waiting
    await leader.close()


async def test_a_secret_makes_one_group(tmp_path: Path) -> None:
    """Each host by itself; the key is this user's alone."""
    secret = tmp_path / "secret"
    secret.write_text("sixteen letters.\n")
    place = free_place()
    options = Options(nnodes=2, master_addr="127.0.0.1", hosts_secret_file=str(secret))
    made = []
    for rank in (0, 1):
        (tmp_path / str(rank)).mkdir()
        made.append(host_keys(replace(options, node_rank=rank), tmp_path / str(rank)))
    assert made[0].key.stat().st_mode & 0o777 == 0o600
    leader = Leader(place, made[0], Log())  # type: ignore[arg-type]
    follower = Follower(replace(place, node_rank=1), made[1], Log())  # type: ignore[arg-type]
    await leader.listen()
    async with asyncio.timeout(60):
        await asyncio.gather(follower.join(SERVED), leader.gather(SERVED))
    await follower.close()
    await leader.close()
    secret.write_text("short")
    with pytest.raises(LauncherError, match="at least 16 characters: it has 5"):
        host_keys(options, tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"nnodes": 1, "node_rank": 1}, "without --nnodes"),
        ({"node_rank": 2}, "--node-rank must be below --nnodes: 2 and 2"),
        ({"master_addr": None}, "needs --master-addr"),
        ({"hosts_secret_file": None}, "one of --hosts-secret-file and --hosts-certs"),
        ({"hosts_certs": "/c"}, "one of --hosts-secret-file and --hosts-certs"),
        ({"num_shard": 3}, "a multiple of --nnodes: 3 and 2"),
    ],
)
def test_rules(changes: dict[str, Any], words: str) -> None:
    good = Options(nnodes=2, master_addr="10.0.0.1", hosts_secret_file="/s", num_shard=4)
    check(good)
    with pytest.raises(LauncherError, match=words):
        check(replace(good, **changes))


def test_ranks_and_ports() -> None:
    place = Place(nnodes=2, node_rank=1, address="a", port=29500, shards=8)
    assert place.local_ranks == range(4, 8)
    assert [place.shard_port(rank) for rank in place.local_ranks] == [29502, 29503, 29504, 29505]
    assert place.control_port == 29501


def test_shards_are_those_of_all_hosts() -> None:
    options = Options(nnodes=2)
    assert num_shards(options, 8) == 16
    assert num_shards(replace(options, device="cpu"), 0) == 2
    assert num_shards(replace(options, num_shard=16), 8) == 16
    with pytest.raises(LauncherError, match="--num-shard 18"):
        num_shards(replace(options, num_shard=18), 8)
