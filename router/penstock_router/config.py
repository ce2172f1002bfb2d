"""The router's configuration, as the launcher sends it on standard input."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Self

_LISTS = (
    "served_model_name",
    "shard_sockets",
    "api_key",
    "cors_allow_origin",
    "trusted_proxies",
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
    api_key: tuple[str, ...]  # empty: everybody may call
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
    otlp_service_name: str
    watermark_gamma: float  # share of the vocabulary that is green
    watermark_delta: float  # added to the logits of green tokens
    max_client_batch_size: int
    graceful_termination_timeout: float  # seconds
    disable_prefix_cache: bool
    disable_shared_reads: bool
    disable_grammar_support: bool
    step_timeout: float  # seconds until a step without a result means that the shards are dead
    step_rows: tuple[int, ...] | None = None  # of steps with prompts; a 0: as measured at start
    predict_route: str | None = None  # a further path of /vertex
    health_route: str | None = None  # a further path of /health

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Parse what the launcher wrote. Raises ValueError for a missing or unknown key."""
        values = json.loads(text)
        names = {field.name for field in dataclasses.fields(cls)}
        if missing := names - values.keys():
            raise ValueError(f"router configuration lacks {sorted(missing)}")
        if unknown := values.keys() - names:
            raise ValueError(f"router configuration has unknown keys {sorted(unknown)}")
        for name in _LISTS:
            values[name] = tuple(values[name])
        if values["step_rows"] is not None:
            values["step_rows"] = tuple(values["step_rows"])
        return cls(**values)
