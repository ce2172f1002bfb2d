"""Where traces go, and how: OTLP over gRPC or over HTTP."""

from __future__ import annotations

import importlib.util
import re

from penstock_launcher.errors import LauncherError
from penstock_launcher.options import Options

GRPC, HTTP = "grpc", "http/protobuf"
_HTTP_PORT = "4318"  # OTLP's own; that of gRPC is 4317
_PATH = "/v1/traces"
_ENDPOINT = re.compile(
    r"(https?://(?:\[[0-9A-Fa-f:.]+\]|[^/\s:?#\[\]]+))(?::(\d{1,5}))?(/[^\s?#]*)?"
)
_LIBRARY = "opentelemetry.exporter.otlp.proto."


def collector(options: Options) -> tuple[str, str] | None:
    """Endpoint and protocol, as the router takes them; None: no traces.

    Without --otlp-protocol a path or the port 4318 says HTTP. An endpoint for HTTP gets
    `/v1/traces` behind it unless it ends so. Raises LauncherError that names the option, the rule
    and the value.
    """
    if options.otlp_endpoint is None:
        return None
    match = _ENDPOINT.fullmatch(options.otlp_endpoint)
    if match is None:
        raise LauncherError(
            "--otlp-endpoint must be http://HOST:PORT or https://HOST:PORT, for OTLP over HTTP "
            f"perhaps with a path behind it, not {options.otlp_endpoint!r}"
        )
    host, port, path = match[1], match[2], (match[3] or "").rstrip("/")
    protocol = options.otlp_protocol or (HTTP if path or port == _HTTP_PORT else GRPC)
    if protocol == HTTP:
        address = f"{host}:{port}" if port else host
        return f"{address}{path.removesuffix(_PATH)}{_PATH}", protocol
    if protocol != GRPC:
        raise LauncherError(
            f"--otlp-protocol must be {GRPC} or {HTTP}: {protocol} is not spoken here"
        )
    if path or not port:
        raise LauncherError(
            "--otlp-endpoint must be http://HOST:PORT or https://HOST:PORT for --otlp-protocol "
            f"{GRPC}, not {options.otlp_endpoint!r}"
        )
    return f"{host}:{port}", protocol


def check_traces(options: Options) -> None:
    """The endpoint, and that its libraries are there. Raises LauncherError."""
    found = collector(options)
    if found is not None and not _is_installed(found[1]):
        raise LauncherError(
            f"--otlp-endpoint needs OpenTelemetry's libraries for {found[1]}, which are not "
            "installed: pip install 'penstock[otlp]'"
        )


def _is_installed(protocol: str) -> bool:
    name = _LIBRARY + ("grpc" if protocol == GRPC else "http") + ".trace_exporter"
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # a package that it stands in
        return False
