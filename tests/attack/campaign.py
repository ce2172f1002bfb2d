"""Runs attacks with the canary beside them, and says of each what fell short."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from tests.attack.attacks import POSTED, Attack
from tests.attack.memory import Memory, router_processes
from tests.attack.shots import Shot, flood
from tests.attack.target import Target
from tests.attack.watch import Song, Watch, canary
from tests.attack.wire import exchange, request

BASELINE_SHARE = 0.08  # of the time of a campaign
OVERTIME = 20.0  # seconds that the shots of an attack, one by one, may take beyond its share
GROWTH = 250.0  # megabytes that an attack may add to the router, or leave there

# As many clients as most attacks have, asking for what the canary asks for.
HONEST = Attack(
    "honest",
    "an equal honest load",
    (flood("generate", POSTED, 1, "200"),),
    most=10_000,
    works=True,
)


@dataclass(slots=True)
class Outcome:
    """What an attack did."""

    attack: Attack
    memory: Memory
    ends: Counter[str] = field(default_factory=Counter)
    song: Song = field(default_factory=lambda: Song((), (), 0, ()))
    alive: bool = False
    faults: dict[str, set[str]] = field(default_factory=dict)

    def note(self, sentence: str, who: str = "") -> None:
        """Something that fell short, and which shot it was."""
        self.faults.setdefault(sentence, set()).add(who)

    @property
    def short(self) -> list[str]:
        """What fell short, each thing once with all shots that showed it."""
        return [
            ": ".join(filter(None, (", ".join(sorted(who)), sentence)))
            for sentence, who in self.faults.items()
        ]


async def campaign(
    target: Target, attacks: Sequence[Attack], seconds: float
) -> AsyncIterator[Outcome]:
    """First an honest load, then the attacks, in about so many seconds altogether."""
    async with canary(target) as watch:
        yield await run(target, HONEST, watch, seconds * BASELINE_SHARE)
        share = seconds * (1 - BASELINE_SHARE) / max(len(attacks), 1)
        for attack in attacks:
            outcome = await run(target, attack, watch, share)
            yield outcome
            if not outcome.alive:
                return


async def run(target: Target, attack: Attack, watch: Watch, seconds: float) -> Outcome:
    """One attack, for about so many seconds: each shot alone, then `at_once` together."""
    memory = Memory(router_processes(target))
    outcome = Outcome(attack, memory)
    following = asyncio.create_task(memory.follow())
    start = time.monotonic()
    await _attack(target, outcome, start + seconds)
    done = time.monotonic()
    settled = await watch.answered_after(done)
    outcome.song = watch.between(start, done)
    outcome.alive = settled and (await exchange(target, request(target, "/health"))).end == "200"
    following.cancel()
    memory.look()
    _judge(outcome)
    return outcome


async def _attack(target: Target, outcome: Outcome, end: float) -> None:
    """Every shot once alone, then `at_once` together until the time is up."""
    attack = outcome.attack
    for shot in attack.shots[: attack.most]:
        if time.monotonic() > end + OVERTIME:
            outcome.note("not tried: the others took too long", shot.name)
            break
        await _fire(target, shot, outcome, crowded=False)
    left = attack.most - len(attack.shots)
    if left > 0:
        shots = iter(itertools.islice(itertools.cycle(attack.shots), left))
        await asyncio.gather(
            *(_fire_until(target, shots, outcome, end) for _ in range(attack.at_once))
        )


async def _fire_until(
    target: Target, shots: itertools.islice[Shot], outcome: Outcome, end: float
) -> None:
    for shot in shots:
        if time.monotonic() > end:
            return
        await _fire(target, shot, outcome, crowded=True)


async def _fire(target: Target, shot: Shot, outcome: Outcome, crowded: bool) -> None:
    for seen in await shot.fire(target):
        outcome.ends[seen.end] += 1
        if fault := shot.fault(seen, crowded):
            outcome.note(fault, shot.name)


def _judge(outcome: Outcome) -> None:
    """What the canary and the process say of an attack."""
    song = outcome.song
    if not outcome.alive:
        outcome.note("the server does not answer any more")
    for what, count in Counter(song.broken).items():
        outcome.note(f"got {what}, {count} times", "canary")
    if song.refused and not outcome.attack.works:
        outcome.note(f"was refused {song.refused} times", "canary")
    if (grown := outcome.memory.peak - outcome.memory.before) > GROWTH:
        outcome.note(f"the router grew by {grown:.0f} MB")
