"""What the shards refuse: counted, and said in the log now and then."""

from __future__ import annotations

from penstock_proto.shard_pb2 import Refusal
from penstock_router.logs import log
from penstock_router.metrics import Metrics, RefusalKind

KINDS: dict[int, RefusalKind] = {
    Refusal.BAD_ADMISSION: "bad_admission",
    Refusal.NOT_A_NUMBER: "not_a_number",
}
LOG_SECONDS = 10.0  # between two lines of a kind: one client may cause thousands


class Refusals:
    """Those of one engine."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._unsaid = dict.fromkeys(KINDS.values(), 0)
        self._said_at: dict[RefusalKind, float] = {}

    def note(self, refusal: Refusal, now: float) -> None:
        """A sequence was refused. now: seconds."""
        kind = KINDS[refusal.kind]
        self._metrics.on_refusal(kind)
        self._unsaid[kind] += 1
        if now - self._said_at.get(kind, -LOG_SECONDS) >= LOG_SECONDS:
            count, self._unsaid[kind] = self._unsaid[kind], 0
            self._said_at[kind] = now
            log("WARNING", f"refused by the shards, {count} times: {refusal.message}", kind=kind)
