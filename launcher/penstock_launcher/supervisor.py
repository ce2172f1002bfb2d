"""Starts the children, watches them, and ends them all together: nothing is ever left running.

Deaths arrive as SIGCHLD; only who is stopped has to be looked for (`stopped`). Whatever ends the
launcher, PR_SET_PDEATHSIG ends the children and the janitor (`run_folder`) removes the folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any

from penstock_launcher.child import SHOW_STACKS, Child, Program, Role
from penstock_launcher.deaths import Death, first_cause
from penstock_launcher.errors import LauncherError
from penstock_launcher.hosts import Hosts
from penstock_launcher.logs import Log
from penstock_launcher.parent import watch_parent
from penstock_launcher.run_folder import RunFolder
from penstock_launcher.stopped import watch_stopped
from penstock_launcher.updates import Updates
from penstock_launcher.waits import all_within, first_of
from penstock_proto.progress import Wait

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
COLLECT = 0.2  # seconds in which the first death's consequences show, so that the cause is named
COLLECT_CAUSE = 3.0  # the same where only consequences have shown: a busy machine
REMIND = 10.0  # seconds until the first "still waiting" line
TICK = 1.0  # seconds between two looks at who is waited for
ROUTER_MARGIN = 8.0  # seconds beyond its grace period; its HTTP processes get 5.5 of them
SHARD_GRACE = 5.0  # seconds that shards get to end after SIGTERM
KILL_GRACE = 10.0  # seconds that the kernel gets to take down what was killed
LAST_WORDS = 0.5  # seconds to read what the dead had written


class Supervisor:
    """One group of children. `run` once, on the main thread (PDEATHSIG follows a thread)."""

    def __init__(
        self,
        log: Log,
        folder: RunFolder,
        graceful_timeout: float,
        updates: Updates | None = None,
        parent: int | None = None,
    ) -> None:
        """updates: asked what SIGHUP means; None: the end."""
        self._updates = updates
        self._hosts: Hosts | None = None
        self._log = log
        self._folder = folder
        self._graceful_timeout = graceful_timeout  # seconds
        self._parent = parent  # the process whose end is that of the group
        self._children: list[Child] = []
        self._deaths: list[Death] = []
        self._died = asyncio.Event()
        self._signals: list[signal.Signals] = []
        self._why = ""  # who wanted it to end
        self._stop = asyncio.Event()  # the first signal
        self._stop_now = asyncio.Event()  # the second one
        self._up = False  # the router serves
        self._stopping = False  # the children were asked to end

    def join(self, hosts: Hosts) -> None:
        """This group is one of several, each on a host: they end together."""
        self._hosts = hosts
        hosts.on_drain = self._on_drain
        self._met.set_result(hosts)

    async def _watch_hosts(self) -> None:
        await (await self._met).watch()

    async def run(self, bring_up: Callable[[Supervisor], Awaitable[None]]) -> int:
        """Bring the group up and watch it until a signal, a death or a failure. The exit code."""
        with self._signal_handlers():
            self._met: asyncio.Future[Hosts] = asyncio.get_running_loop().create_future()
            task = asyncio.ensure_future(bring_up(self))
            watches = [
                asyncio.ensure_future(self._watch()),
                asyncio.ensure_future(self._watch_hosts()),
            ]
            try:
                await self._until_event(task, *watches)
                if task.done() and not task.exception():
                    self._up = True
                    await self._until_event(*watches)
                return await self._end(next((one for one in watches if one.done()), task))
            finally:
                for one in (task, *watches):
                    one.cancel()
                await self._kill_all()
                if self._hosts is not None:
                    await self._hosts.close()

    def start(self, program: Program) -> Child:
        """Start a child. Raises LauncherError when it cannot be started."""
        child = Child(program, self._log)
        self._folder.started(child.group)
        self._children.append(child)
        return child

    async def ready(
        self, children: list[Child], expected: float | None = None
    ) -> list[dict[str, Any]]:
        """Wait until all are ready, and say so from time to time. What they said, in order.

        expected: seconds that it took the last time.
        """
        started = time.monotonic()
        remind = REMIND  # seconds, of which the next is twice as many
        waiting: set[asyncio.Future[dict[str, Any]]] = {child.ready for child in children}
        with self._log.waiting() as show:
            while waiting:
                done, waiting = await asyncio.wait(
                    waiting, timeout=min(TICK, REMIND), return_when=asyncio.FIRST_EXCEPTION
                )
                for future in done:
                    future.result()
                if waiting:
                    names = self._names(child for child in children if not child.ready.done())
                    elapsed = time.monotonic() - started
                    if due := elapsed >= remind:
                        remind *= 2
                    show(Wait(names, elapsed, expected), due=due)
        return [child.ready.result() for child in children]

    async def _watch(self) -> None:
        """Raises LauncherError for what no signal tells of."""
        watches = [watch_stopped(self._living, self._log), watch_parent(self._parent)]
        if self._updates is not None:
            watches.append(self._updates.watch())
        await asyncio.gather(*watches)

    async def _end(self, task: asyncio.Future[None]) -> int:
        """What follows the first event. Returns the exit code, before the rest is killed."""
        if not self._stop.is_set():
            await self._collect()
        if self._died.is_set():
            return await self._fail()
        if self._stop.is_set():
            return await self._shut_down()
        await self._kill_all()
        error = task.exception()
        if not isinstance(error, LauncherError):
            raise error if error else AssertionError("the group ended without a reason")
        self._log.error(str(error))
        await self._tell_hosts(str(error))
        return 1

    async def _tell_hosts(self, sentence: str) -> None:
        if self._hosts is not None:
            await self._hosts.failed(sentence)

    async def _collect(self) -> None:
        """A death explains more than its consequences do, and its own may be several deaths.

        A shard that ends with code 0 was left by a router, which may take longer to end.
        """
        await asyncio.sleep(COLLECT)
        router = [child.ended for child in self._living(Role.ROUTER)]
        if self._deaths and all(death.consequence for death in self._deaths):
            await all_within(COLLECT_CAUSE, router)

    async def _fail(self) -> int:
        death = first_cause(self._deaths)
        tail = death.child.tail
        elsewhere = None if death.killed else self._hosts
        if elsewhere is not None and (cause := await elsewhere.cause(tail.error)) is not None:
            await self._kill_all()
            self._log.error(cause)
            return 1
        await self._kill_all()
        if death.code > 0 and tail.error:  # its own last word says why
            sentence = f"{death.describe()}: {tail.error}"
            self._log.error(sentence)
        else:
            sentence = death.describe()
            self._log.error(sentence, last_lines=tail.text())
        await self._tell_hosts(sentence)
        return 1

    async def _shut_down(self) -> int:
        """The router drains, then the shards end; a second signal or a death cuts it short."""
        self._log.info(f"{self._why}: shutting down")
        drained = True
        if self._hosts is not None:
            self._hosts.drain()
        if self._up:
            router, seconds = self._living(Role.ROUTER), self._graceful_timeout + ROUTER_MARGIN
            if self._hosts is not None and not router:  # host 0 drains, and their streams end
                await all_within(seconds, [child.ended for child in self._living()])
            drained = await self._end_gently(router, seconds)
            if self._died.is_set():
                await self._collect()
                return await self._fail()
            if not drained:
                await self._show_stacks(router)
            shards = self._living()
            if drained and not await self._end_gently(shards, SHARD_GRACE):
                if self._died.is_set():  # a shard failed on its way out
                    return await self._fail()
                self._log.warning("shards did not end in order", slow=self._names(self._living()))
                await self._show_stacks(self._living())
            self._stopping = True
        await self._kill_all()
        if self._stop_now.is_set():
            self._log.error(f"{self._signals[-1].name}: stopped at once")
            return 128 + self._signals[-1]
        if not drained:
            self._log.error("the router did not drain in time, and was killed")
            return 1
        self._log.info("shut down")
        return 0

    async def _end_gently(self, children: list[Child], timeout: float) -> bool:
        """SIGTERM, then wait. False if one is still there, or ended with another code than 0."""
        for child in children:
            child.terminate()
        if children:
            ends = asyncio.gather(*(child.ended for child in children))
            await first_of(
                ends,
                self._died.wait(),
                self._stop_now.wait(),
                asyncio.sleep(timeout),
                forever=(ends,),
            )
        return all(child.ended.done() and child.ended.result() == 0 for child in children)

    async def _show_stacks(self, children: Iterable[Child]) -> None:
        """What is about to be killed says where it hangs, unless somebody cannot wait."""
        if not self._stop_now.is_set():
            for child in children:
                child.show_stacks()
            await asyncio.sleep(LAST_WORDS)

    def _names(self, children: Iterable[Child]) -> str:
        return ", ".join(child.name for child in children)

    async def _until_event(self, *futures: asyncio.Future[None]) -> None:
        await first_of(*futures, self._stop.wait(), self._died.wait(), forever=futures)

    def _living(self, *roles: Role) -> list[Child]:
        return [
            child
            for child in self._children
            if child.alive and child.program.role in (roles or Role)
        ]

    async def _kill_all(self) -> None:
        self._stopping = True
        for child in self._children:
            child.signal(signal.SIGKILL)
        await all_within(KILL_GRACE, [child.ended for child in self._children])
        await all_within(LAST_WORDS, [child.silent for child in self._children])
        for child in self._living():
            self._log.error(f"{child.name} (process {child.group}) does not die of SIGKILL")

    def _reap(self) -> None:
        """On SIGCHLD, which may stand for several deaths."""
        for child in self._children:
            if not child.reap():
                continue
            self._folder.gone(child.group)
            if not self._expected(child):
                self._deaths.append(Death(child, child.ended.result(), len(self._deaths)))
                self._died.set()

    def _expected(self, child: Child) -> bool:
        code = child.ended.result()
        if self._stopping or (child.program.role is Role.TASK and code == 0):
            return True
        # draining: the router ends when it is done, and the shards when their stream ends
        return self._stop.is_set() and code == 0

    def _on_signal(self, number: signal.Signals) -> None:
        if number == signal.SIGHUP and self._updates is not None and self._updates.hangup():
            return
        self._why = self._why or number.name
        self._signals.append(number)
        (self._stop_now if self._stop.is_set() else self._stop).set()

    def _on_show_stacks(self) -> None:
        """An operator asks where everything stands."""
        for child in self._living(Role.SHARD, Role.ROUTER):
            child.show_stacks()

    def _on_drain(self, who: str) -> None:
        """Another host was told to end."""
        self._why = self._why or who
        self._stop.set()

    @contextlib.contextmanager
    def _signal_handlers(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        # a signal that was ignored from the start (SIGHUP under nohup) stays ignored
        handled = [s for s in STOP_SIGNALS if signal.getsignal(s) is not signal.SIG_IGN]
        if self._updates is not None and self._updates.wanted:
            handled = list({*handled, signal.SIGHUP})
        for number in handled:
            loop.add_signal_handler(number, self._on_signal, number)
        loop.add_signal_handler(SHOW_STACKS, self._on_show_stacks)
        try:
            yield
        finally:
            for number in (*handled, signal.SIGCHLD, SHOW_STACKS):
                loop.remove_signal_handler(number)
