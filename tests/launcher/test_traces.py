"""Where traces go: protocol and endpoint, and what is said where a library is missing."""

import json
import sys

import pytest

from launcher.test_configs import plan, router
from penstock_launcher.checks import check
from penstock_launcher.command_line import parse
from penstock_launcher.errors import LauncherError
from penstock_launcher.options import Options
from penstock_launcher.traces import collector
from penstock_router.config import RouterConfig

TAKEN = [
    ("http://c:4317", None, "http://c:4317", "grpc"),
    ("https://c:4317/", None, "https://c:4317", "grpc"),
    ("http://[::1]:4317", None, "http://[::1]:4317", "grpc"),
    ("http://c:4318", "grpc", "http://c:4318", "grpc"),
    ("http://c:4318", None, "http://c:4318/v1/traces", "http/protobuf"),
    ("http://c:4318/", None, "http://c:4318/v1/traces", "http/protobuf"),
    ("http://c:4317", "http/protobuf", "http://c:4317/v1/traces", "http/protobuf"),
    ("http://c:9/v1/traces", None, "http://c:9/v1/traces", "http/protobuf"),
    ("https://c/v1/traces/", None, "https://c/v1/traces", "http/protobuf"),
    ("https://c/otlp", None, "https://c/otlp/v1/traces", "http/protobuf"),
]
REFUSED = [
    ("c:4317", None),
    ("http://c", None),
    ("http://c:x", None),
    ("http://c:4317?a=b", None),
    ("ftp://c:4317", None),
    ("http://c:4317/v1/traces", "grpc"),
    ("http://c:4318", "http/json"),
]


@pytest.mark.parametrize(("given", "protocol", "endpoint", "spoken"), TAKEN)
def test_endpoint_and_protocol(given, protocol, endpoint, spoken):
    options = Options(otlp_endpoint=given, otlp_protocol=protocol)
    assert collector(options) == (endpoint, spoken)
    taken = RouterConfig.from_json(json.dumps(dict(router(plan(options)).config)))
    assert (taken.otlp_endpoint, taken.otlp_protocol) == (endpoint, spoken)


@pytest.mark.parametrize(("given", "protocol"), REFUSED)
def test_what_no_collector_can_be_reached_by(given, protocol):
    with pytest.raises(LauncherError, match="--otlp-") as error:
        check(Options(otlp_endpoint=given, otlp_protocol=protocol))
    assert (given if protocol != "http/json" else protocol) in str(error.value)


def test_a_protocol_alone_asks_for_nothing():
    """A platform sets OpenTelemetry's variables in every container."""
    options, _ = parse([], {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"})
    assert options.otlp_protocol == "http/json" and collector(options) is None
    check(options)


@pytest.mark.parametrize(
    ("endpoint", "module"),
    [
        ("http://c:4317", "opentelemetry.exporter.otlp.proto.grpc"),
        ("http://c:4318", "opentelemetry.exporter.otlp.proto.http"),
        ("http://c:4318", "opentelemetry"),
    ],
)
def test_what_to_install(monkeypatch, endpoint, module):
    for name in [name for name in sys.modules if f"{name}.".startswith(f"{module}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(LauncherError, match="penstock\\[otlp\\]"):
        check(Options(otlp_endpoint=endpoint))
