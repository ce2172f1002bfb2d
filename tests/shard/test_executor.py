"""The executor's thread without a server around it."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

from penstock_proto import shard_pb2
from penstock_shard.executor import Executor
from support.local_shard import load_model


def test_what_lives_on_is_never_collected_during_steps(checkpoint: Callable[[str], Path]) -> None:
    gc.unfreeze()
    executor = Executor(load_model(checkpoint("llama3")), lambda result: None, lambda error: None)
    request = shard_pb2.WarmupRequest(
        max_prefill_tokens=8, max_slots=1, max_sequence_length=8, max_batch_total_tokens=64
    )
    try:
        executor.warm_up(request)
        assert gc.get_freeze_count() > 10_000
    finally:
        gc.unfreeze()
        executor.close()
        executor.join(60)
