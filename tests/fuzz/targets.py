"""All targets by name. Each is made in the process that runs it."""

from __future__ import annotations

from collections.abc import Callable

from tests.fuzz import files, frames, http
from tests.fuzz.target import Target

TARGETS: dict[str, Callable[[], Target]] = {
    "safetensors": files.safetensors,
    "config": files.config,
    "tokenizer": files.tokenizer,
    "template": files.template,
    "front": frames.front,
    "router": frames.router,
    "offline": frames.offline,
    "shard": frames.shard,
    "http": http.raw,
    "bodies": http.bodies,
}
