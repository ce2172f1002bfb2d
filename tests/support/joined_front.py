"""A front and the scheduling process, joined by a real pair of sockets, in one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass

from penstock_proto.front_pb2 import FromFront
from penstock_router.engine import Engine
from penstock_router.fronts.frames import Frames
from penstock_router.fronts.front_link import FrontLink
from penstock_router.fronts.remote_engine import Outbox, RemoteEngine, RemoteMetrics
from penstock_router.fronts.remote_ledger import RemoteLedger
from penstock_router.metrics import Metrics
from penstock_router.quotas import Quotas
from support.fake_engine import FakeEngine
from support.relay import Relay


@dataclass
class JoinedFront:
    """Both sides."""

    engine: RemoteEngine
    metrics: RemoteMetrics
    ledger: RemoteLedger
    link: FrontLink
    front_frames: Frames
    link_frames: Frames
    ready: asyncio.Event
    lost: asyncio.Event  # the front has seen that the other side is gone

    @property
    def entries(self) -> int:
        """Sequences that either side still has in its table."""
        return len(self.engine._live) + len(self.link._numbers)

    async def round_trip(self) -> None:
        """Returns when everything that was said has been heard, and the answers to it."""
        answer = asyncio.ensure_future(self.metrics.scrape())
        lost = asyncio.ensure_future(self.lost.wait())
        await asyncio.wait((answer, lost), return_when=asyncio.FIRST_COMPLETED)
        lost.cancel()
        assert not answer.cancel(), "the connection is broken"


@contextlib.asynccontextmanager
async def joined_front(
    engine: Engine | FakeEngine,
    metrics: Metrics,
    *,
    ready: bool = True,
    quotas: Quotas | None = None,
    relay: Relay | None = None,
) -> AsyncIterator[JoinedFront]:
    """A front of the engine. At the end both sockets are closed, if they are not already.

    relay: between the two; the front is who connects.
    """
    loop = asyncio.get_running_loop()
    ours, its = socket.socketpair()
    relaying = None
    if relay is not None:
        near, its_end = socket.socketpair()
        ends = [await asyncio.open_unix_connection(sock=sock) for sock in (near, its)]
        relaying, its = asyncio.create_task(relay.join(*ends)), its_end
    is_ready, lost = asyncio.Event(), asyncio.Event()
    outbox = Outbox(lambda frame: front_frames.send(frame))
    remote = RemoteEngine(engine.limits, outbox)
    front_frames = Frames(remote.receive, lost.set)
    send = lambda frame: link_frames.send(frame)  # noqa: E731
    link = FrontLink(engine, metrics, send, quotas)  # type: ignore[arg-type]

    def receive(data: bytes) -> None:
        frame = FromFront.FromString(data)
        if frame.ready:
            is_ready.set()
        link.receive(frame)

    metrics._page._rest = 0  # a round trip asks for the page
    link_frames = Frames(receive, link.gone)
    await loop.create_unix_connection(lambda: link_frames, sock=ours)
    await loop.create_unix_connection(lambda: front_frames, sock=its)
    front = JoinedFront(
        engine=remote,
        metrics=RemoteMetrics(remote, outbox),
        ledger=RemoteLedger(remote, outbox),
        link=link,
        front_frames=front_frames,
        link_frames=link_frames,
        ready=is_ready,
        lost=lost,
    )
    try:
        if ready:
            outbox.frame.ready = True
            await asyncio.wait_for(is_ready.wait(), 60)
        yield front
    finally:
        front_frames.close()
        link_frames.close()
        await asyncio.wait_for(lost.wait(), 60)
        if relaying is not None:
            relaying.cancel()
            await asyncio.wait({relaying})
