"""Requests that nobody waits for."""

from __future__ import annotations

from dataclasses import dataclass

from penstock_launcher.kinds import integer, path, switch
from penstock_launcher.options.option import option


@dataclass(frozen=True, kw_only=True)
class Batches:
    batch_folder: str | None = option(
        None,
        path(),
        "Folder for /v1/files and /v1/batches, made if need be and for this user alone; without it "
        "those routes are 404",
    )
    batch_storage_limit: int = option(
        10_000_000_000,
        integer(1_000_000, 10**15, "bytes"),
        "Bytes that the files of all clients may take in batch-folder",
    )
    offline_socket: bool = option(
        False,
        switch(),
        "Also take batches of `penstock.LLM` at a Unix socket in the folder of shard-uds-path. "
        "Needs http-processes 0, which is its default then",
    )
