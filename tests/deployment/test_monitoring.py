"""Alerts, recording rules and the dashboard, against what the server exports."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from scripts.dashboard import dashboard

from deployment.rendered import CHART, only
from penstock_router.metrics import Metrics

ROOT = CHART.parent.parent
RULES = CHART / "files" / "rules.yaml"
# of Prometheus itself, and what the rules record
OTHERS = {"up", "penstock_queue_seconds_p90", "penstock_memory_bytes"}  # the last: of a shard
METRIC = re.compile(r"\b(?:tgi|penstock|process|vllm|python)_\w+|\bup\b")


def exported() -> set[str]:
    """Names of all samples of /metrics."""
    text = Metrics(100, 200).render().decode()
    return {re.split(r"[{ ]", line)[0] for line in text.splitlines() if line[:1] != "#"}


def rules() -> list[dict[str, Any]]:
    return [
        rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
    ]


def names(expression: str) -> set[str]:
    return set(METRIC.findall(re.sub(r'"[^"]*"', "", expression)))


def promtool(*arguments: object, folder: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    command = ["promtool", *map(str, arguments)]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_metric_of_the_rules_is_exported() -> None:
    for rule in rules():
        found = names(rule["expr"])
        assert found and found <= exported() | OTHERS, rule


def test_every_metric_of_the_dashboard_is_exported() -> None:
    panels = dashboard()["panels"]
    expressions = [target["expr"] for panel in panels for target in panel["targets"]]
    assert len(expressions) > 15
    for expression in expressions:
        assert names(expression) and names(expression) <= exported(), expression


def test_the_dashboard_in_the_chart_is_the_one_that_the_script_makes() -> None:
    assert json.loads((CHART / "files/dashboard.json").read_text()) == dashboard()
    data = only("watched", "ConfigMap")["data"]
    assert json.loads(data["penstock.json"]) == dashboard()


def test_the_rules_in_the_cluster_are_the_ones_of_the_file() -> None:
    assert only("watched", "PrometheusRule")["spec"] == yaml.safe_load(RULES.read_text())
    assert only("watched", "ServiceMonitor")["metadata"]["labels"]["release"] == "prometheus"


@pytest.mark.parametrize("case", ["hpa", "keda"])
def test_autoscalers_look_at_what_there_is(case: str) -> None:
    if case == "hpa":
        metrics = only(case, "HorizontalPodAutoscaler")["spec"]["metrics"]
        found = {one["pods"]["metric"]["name"] for one in metrics}
    else:
        triggers = only(case, "ScaledObject")["spec"]["triggers"]
        found = {name for one in triggers for name in names(one["metadata"]["query"])}
    assert len(found) == 3 and found <= exported() | OTHERS


def test_promtool_reads_everything(tmp_path: Path) -> None:
    """Expressions of the dashboard as rules, so that somebody parses them."""
    promtool("check", "rules", RULES, folder=tmp_path)
    targets = [target for panel in dashboard()["panels"] for target in panel["targets"]]
    made = [
        {"record": f"line_{n}", "expr": target["expr"].replace("$__rate_interval", "5m")}
        for n, target in enumerate(targets)
    ]
    (tmp_path / "made.yaml").write_text(json.dumps({"groups": [{"name": "g", "rules": made}]}))
    promtool("check", "rules", "made.yaml", folder=tmp_path)


def test_alerts_fire_when_they_should_and_only_then(tmp_path: Path) -> None:
    shutil.copy(RULES, tmp_path)
    shutil.copy(Path(__file__).parent / "data" / "rules_test.yaml", tmp_path)
    promtool("test", "rules", "rules_test.yaml", folder=tmp_path)


def test_every_alert_has_an_entry_in_the_runbook() -> None:
    page = (ROOT / "docs" / "runbook.md").read_text()
    entries = {heading.lower(): heading for heading in re.findall(r"^## (\w+)$", page, re.M)}
    alerts = [rule for rule in rules() if "alert" in rule]
    for rule in alerts:
        page_name, anchor = rule["annotations"]["runbook"].split("#")
        assert page_name == "docs/runbook.md" and entries[anchor] == rule["alert"]
    assert len(entries) == len(alerts)
    for entry in re.split(r"^## ", page, flags=re.M)[1:-1]:  # the last says how each was tried
        assert all(f"**{word}**" in entry for word in ("Symptom", "Look at", "Do")), entry[:40]


def test_metrics_of_the_runbook_are_exported() -> None:
    page = (ROOT / "docs" / "runbook.md").read_text()
    found = set(re.findall(r"`((?:tgi|penstock)_\w+)", page))
    known = {name.removesuffix("_count") for name in exported()} | exported() | OTHERS
    assert found and found <= known
