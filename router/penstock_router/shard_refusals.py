"""What the shards refuse: counted, and said in the log now and then."""

from __future__ import annotations

from penstock_proto.shard_pb2 import Refusal
from penstock_router.instruments import RefusalKind
from penstock_router.logs import RareLog
from penstock_router.metrics import Metrics

KINDS: dict[int, RefusalKind] = {
    Refusal.BAD_ADMISSION: "bad_admission",
    Refusal.NOT_A_NUMBER: "not_a_number",
    Refusal.GRAMMAR_FAILED: "grammar_failed",
    Refusal.OUT_OF_MEMORY: "out_of_memory",
}


class Refusals:
    """Those of one engine."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._log = RareLog("penstock_router")  # a line a kind: one client may cause thousands

    def note(self, refusal: Refusal) -> None:
        """A sequence was refused."""
        kind = KINDS[refusal.kind]
        self._metrics.on_refusal(kind)
        self._log("WARNING", f"refused by the shards: {kind}", reason=refusal.message)
