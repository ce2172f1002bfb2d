"""One model on several hosts."""

from __future__ import annotations

from dataclasses import dataclass

from penstock_launcher.kinds import integer, path, text
from penstock_launcher.options.option import option


@dataclass(frozen=True, kw_only=True)
class Hosts:
    nnodes: int = option(
        1,
        integer(1, 64),
        "Hosts that serve one model together; each runs a launcher with the same options but for "
        "node-rank. num-shard is then the number of all their shards",
        also=("LWS_GROUP_SIZE",),
    )
    node_rank: int = option(
        0,
        integer(0, 63),
        "Which of these hosts this is; 0 has the router and serves HTTP",
        also=("LWS_WORKER_INDEX",),
    )
    hosts_secret_file: str | None = option(
        None,
        path(),
        "File with a secret of all these hosts (16 characters and more), from which each makes a "
        "certificate; what they say to each other goes by TLS, but for NCCL's and gloo's",
    )
    hosts_certs: str | None = option(
        None,
        path(),
        "Folder with ca.pem, host.pem and host.key to use instead; host.pem is for the name "
        "penstock-host-<node-rank>",
    )
    master_addr: str | None = option(
        None,
        text(),
        "Address where the shards meet; with master-port alone 127.0.0.1",
        default_text="none: they meet through a file",
        also=("LWS_LEADER_ADDRESS",),
    )
    master_port: int | None = option(
        None,
        integer(1, 65_535),
        "Port where the shards meet; with master-addr alone 29500",
        default_text="none: they meet through a file",
    )
