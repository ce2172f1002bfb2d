"""Durations are measured by clocks that never jump. The clock on the wall says dates, and where it
is read is a list."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COMPONENTS = ("client", "kernels", "launcher", "proto", "quantization", "router", "shard")
WALL = {
    ("time", "time"),
    ("time", "time_ns"),
    ("time", "localtime"),
    ("time", "gmtime"),
    ("datetime", "now"),
    ("datetime", "utcnow"),
    ("datetime", "today"),
}
DATES = {  # what is shown or kept on a disk, and when a file's life ends
    "client/penstock/batches/job.py": {"_now", "_until_end"},
    "client/penstock/batches/purge.py": {"_is_over"},
    "client/penstock/bench/serve.py": {"_write"},
    "launcher/penstock_launcher/certificates.py": {"_pair"},
    "launcher/penstock_launcher/logs.py": {"_now"},
    "router/penstock_router/api/openai_answer.py": {""},
    "router/penstock_router/api/responses_answer.py": {"", "response"},
    "router/penstock_router/batches/store.py": {"_shown", "batch_object", "keep"},
    "router/penstock_router/templates/environment.py": {"_strftime_now"},
    "router/penstock_router/traces.py": {"record"},
    "shard/penstock_shard/log.py": {"record"},
}


class Reads(ast.NodeVisitor):
    """Functions in which the wall's clock is read."""

    def __init__(self) -> None:
        self._within = [""]
        self.found: set[str] = set()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._within.append(node.name)
        self.generic_visit(node)
        self._within.pop()

    visit_AsyncFunctionDef = visit_FunctionDef  # type: ignore[assignment]

    def visit_Attribute(self, node: ast.Attribute) -> None:
        name = node.value.attr if isinstance(node.value, ast.Attribute) else None
        name = node.value.id if isinstance(node.value, ast.Name) else name
        if (name, node.attr) in WALL:
            self.found.add(self._within[-1])
        self.generic_visit(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        names = {alias.name for alias in node.names}
        assert node.module != "time" or not names & {"time", "time_ns"}, "import the module"


def reads(source: str) -> set[str]:
    visitor = Reads()
    visitor.visit(ast.parse(source))
    return visitor.found


def test_the_clock_on_the_wall_is_read_for_dates_alone() -> None:
    found = {}
    for component in COMPONENTS:
        for path in sorted((ROOT / component).rglob("*.py")):
            if functions := reads(path.read_text()):
                found[str(path.relative_to(ROOT))] = functions
    assert found == DATES


@pytest.mark.parametrize(
    "source", ["time.time()", "x = time.time_ns", "datetime.now(UTC)", "datetime.datetime.now()"]
)
def test_it_sees(source: str) -> None:
    assert reads(f"def f():\n    {source}") == {"f"}
    assert not reads("def f():\n    time.monotonic()")
