"""The router's configuration, as the launcher sends it on standard input."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, Self

from penstock_proto.api_keys import ApiKey, KeyItem
from penstock_router.tls import TlsFiles

_LISTS = (
    "served_model_name",
    "shard_sockets",
    "api_key",
    "cors_allow_origin",
    "trusted_proxies",
    "metric_names",
    "remote_shards",
    "step_rows",
    "shard_processes",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterConfig:
    """One field an option of the launcher; None where the router derives the value itself."""

    model_path: str
    model_id: str
    model_sha: str | None
    served_model_name: tuple[str, ...]  # the first is shown; empty: any name is taken
    tokenizer_config_path: str | None
    tool_call_parser: str  # auto: as the checkpoint or its chat template shows
    reasoning_parser: str  # the same
    shard_sockets: tuple[str, ...]
    listener: int  # descriptor of a socket that is bound, but does not listen yet
    prometheus_listener: int | None  # of one for /metrics alone
    http_processes: int  # that serve HTTP and text; 0: the router itself does
    api_key: tuple[KeyItem, ...]  # empty: everybody may call
    cors_allow_origin: tuple[str, ...]
    max_concurrent_requests: int
    max_connections_per_client: int
    max_requests_per_client: int  # 0: any
    trusted_proxies: tuple[str, ...]  # addresses and networks
    max_best_of: int
    max_stop_sequences: int
    max_top_n_tokens: int
    max_input_tokens: int | None
    max_total_tokens: int | None
    waiting_served_ratio: float
    max_batch_prefill_tokens: int | None
    max_batch_total_tokens: int | None
    max_waiting_tokens: int
    max_batch_size: int | None
    validation_workers: int
    payload_limit: int  # bytes
    strict_requests: bool  # unknown fields are refused
    generation_config: str  # auto or none: whether /v1 takes its sampling defaults
    otlp_endpoint: str | None  # of a collector of traces
    otlp_protocol: str | None  # grpc or http/protobuf
    otlp_service_name: str
    watermark_gamma: float  # share of the vocabulary that is green
    watermark_delta: float  # added to the logits of green tokens
    max_client_batch_size: int
    graceful_termination_timeout: float  # seconds
    disable_prefix_cache: bool
    disable_shared_reads: bool
    disable_grammar_support: bool
    step_timeout: float  # seconds until a step without a result means that the shards are dead
    step_rows: tuple[int, ...] | None = None  # of steps with prompts; None: as measured at start
    offline_socket: str | None = None  # path of one to make, for programs that bring batches
    batch_folder: str | None = None  # of /v1/files and /v1/batches; None: there are none
    batch_storage_limit: int = 0  # bytes in it
    predict_route: str | None = None  # a further path of /vertex
    health_route: str | None = None  # a further path of /health
    shard_processes: tuple[int, ...] = ()  # ids of those on this host
    remote_shards: tuple[str, ...] = ()  # `name@address:port`, behind those of shard_sockets
    host_keys: dict[str, str] | None = None  # files for these: certificate, key, authorities
    updates: int | None = None  # descriptor of a pipe: what changes while the router runs
    metric_names: tuple[str, ...] = ()  # whose names /metrics shows beside ours and TGI's
    drain_delay: float = 5.0  # seconds in which balancers may look away before the server drains
    override_generation_config: dict[str, Any] | None = None  # wins over the model's file
    default_chat_template_kwargs: dict[str, Any] | None = None  # where requests say nothing
    start_seconds: dict[str, float] = field(default_factory=dict)  # of the launcher, by phase
    stream_keepalive: float = 15.0  # seconds of silence until a stream says something; 0: never
    header_timeout: float = 15.0  # seconds for the head of a request, from its first byte
    idle_timeout: float = 75.0  # seconds that a connection may do nothing
    max_headers: int = 128  # of a request
    max_header_size: int = 8190  # bytes of each, and of the request line
    max_request_time: float | None = None  # seconds that a request may take; None: any
    ssl_certfile: str | None = None  # None: HTTP without TLS
    ssl_keyfile: str | None = None  # None: in the certificate's file
    ssl_ca_certs: str | None = None  # of clients' certificates; None: clients need none
    root_path: str = ""  # behind which a proxy shows the server; requests may come with or without

    @property
    def keys(self) -> tuple[ApiKey, ...]:
        """The API keys."""
        return tuple(ApiKey.of(item) for item in self.api_key)

    @property
    def tls(self) -> TlsFiles | None:
        """How connections are encrypted; None: they are not."""
        if self.ssl_certfile is None:
            return None
        return TlsFiles(self.ssl_certfile, self.ssl_keyfile, self.ssl_ca_certs)

    @property
    def scheme(self) -> str:
        """Of the server's URLs."""
        return "http" if self.ssl_certfile is None else "https"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Parse what the launcher wrote. Raises ValueError for a missing or unknown key."""
        values = json.loads(text)
        fields = dataclasses.fields(cls)
        names = {one.name for one in fields}
        unset = dataclasses.MISSING
        needed = {f.name for f in fields if f.default is unset and f.default_factory is unset}
        if missing := needed - values.keys():
            raise ValueError(f"router configuration lacks {sorted(missing)}")
        if unknown := values.keys() - names:
            raise ValueError(f"router configuration has unknown keys {sorted(unknown)}")
        for name in values.keys() & set(_LISTS):
            values[name] = None if values[name] is None else tuple(values[name])
        return cls(**values)
