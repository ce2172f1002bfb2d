"""How gRPC moves bytes in our processes."""

from __future__ import annotations

import os

# gRPC's event engine hands every read and write through a pool of threads of its own. One stream
# over a Unix socket gains nothing by that, and the hand-overs cost the router a fifth of its CPU at
# 8 streams and every message 70 us. Without it the thread that waits for a message reads it.
EXPERIMENTS = "-event_engine_client,-event_engine_listener"


def without_event_engine() -> None:
    """To be called before grpc is imported. What the operator set stays."""
    os.environ.setdefault("GRPC_EXPERIMENTS", EXPERIMENTS)
