"""What the launcher says while the server runs: one line of JSON each, on an inherited pipe."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable

from penstock_proto.api_keys import ApiKey

MOST_BYTES = 64 * 1024  # read at a time


def listen_for_updates(descriptor: int, on_keys: Callable[[tuple[ApiKey, ...]], None]) -> None:
    """Call `on_keys` with the API keys that count from then on."""
    loop = asyncio.get_running_loop()
    os.set_blocking(descriptor, False)
    buffer = bytearray()

    def read() -> None:
        data = os.read(descriptor, MOST_BYTES)
        if not data:  # the launcher is gone
            loop.remove_reader(descriptor)
        buffer.extend(data)
        *lines, rest = buffer.split(b"\n")
        buffer[:] = rest
        for line in filter(None, lines):
            try:
                keys = tuple(ApiKey.of(item) for item in json.loads(line)["api_key"])
            except ValueError:  # the launcher could not write all of it, and said so
                continue
            on_keys(keys)

    loop.add_reader(descriptor, read)
