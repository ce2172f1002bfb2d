"""What operators see."""

from __future__ import annotations

from dataclasses import dataclass

from penstock_launcher.kinds import integer, many, one_of, switch, text
from penstock_launcher.options.option import option


@dataclass(frozen=True, kw_only=True)
class Observability:
    json_output: bool = option(False, switch(), "Write log lines as JSON")
    log_level: str = option(
        "info",
        one_of("trace", "debug", "info", "warn", "error", "off", any_case=True),
        "Least level of the log lines that are written",
        env_fallback="info",  # TGI also takes filters such as text_generation_router=debug
    )
    env: bool = option(
        False,
        switch(),
        "Print versions, platform and GPUs for a bug report, then go on",
        short="-e",
        in_environment=False,
    )
    metric_names: tuple[str, ...] = option(
        (),
        many(one_of("tgi", "vllm", "sglang")),
        "Whose names /metrics shows beside Penstock's own and TGI's, which it shows in any case; "
        "repeatable",
        default_text="tgi",
    )
    prometheus_port: int | None = option(
        None,
        integer(1, 65_535),
        "Second port for /metrics, which the main port serves in any case (TGI documents 9000, "
        "but never listened there)",
        default_text="no second port",
    )
    otlp_endpoint: str | None = option(
        None,
        text(),
        "Collector that gets a trace of each request by OTLP, for instance http://127.0.0.1:4317. "
        "Needs the extra `otlp`",
        default_text="no traces",
    )
    otlp_protocol: str | None = option(
        None,
        one_of("grpc", "http/protobuf", "http/json", names={"http": "http/protobuf"}),
        "How otlp-endpoint is spoken to. http/json is refused",
        default_text="http/protobuf for port 4318 or an endpoint with a path, else grpc",
        also=("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"),
    )
    otlp_service_name: str = option(
        "text-generation-inference.router", text(), "What traces call this server"
    )
