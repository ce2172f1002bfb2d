"""The chart as the real Helm renders it, over a matrix of values."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

CHART = Path(__file__).parent.parent.parent / "charts" / "penstock"
NAME, NAMESPACE = "chat", "models"
Values = dict[str, Any]
Objects = dict[tuple[str, str], dict[str, Any]]  # by kind and name

BASE: Values = {"image": {"repository": "registry.example/penstock"}}
MATRIX: dict[str, Values] = {
    "default": {},
    "pinned": {
        "image": {"digest": "sha256:" + "0" * 64},
        "model": {"id": "a/b", "revision": "c0ffee"},
    },
    "cpu": {"device": "cpu", "numShard": 2, "networkPolicy": {"enabled": False}},
    "sharded": {"numShard": 4, "args": ["--max-total-tokens=8192", "--dtype", "bfloat16"]},
    "several": {
        "replicas": 3,
        "cache": {"accessMode": "ReadWriteMany"},
        "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
    },
    "download": {
        "replicas": 2,
        "model": {"id": "a/b", "revision": "v1"},
        "download": {"enabled": True},
        "cache": {"existingClaim": "models"},
        "existingSecrets": {"hubToken": {"name": "hub", "key": "token"}},
    },
    "hpa": {"autoscaling": {"mode": "hpa"}, "cache": {"enabled": False}},
    "keda": {
        "autoscaling": {"mode": "keda", "prometheusUrl": "http://prometheus:9090"},
        "cache": {"enabled": False},
    },
    "watched": {
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True},
        "dashboard": {"enabled": True},
        "networkPolicy": {"monitoring": [{"namespaceSelector": {"matchLabels": {"a": "b"}}}]},
    },
    "gateway": {
        "ingress": {
            "enabled": True,
            "host": "chat.example",
            "className": "nginx",
            "tlsSecret": "t",
        },
        "inferencePool": {"enabled": True, "endpointPicker": "picker"},
    },
    "hosts": {
        "numShard": 8,
        "hosts": {"count": 2, "secret": {"name": "hosts", "key": "secret"}},
        "cache": {"accessMode": "ReadWriteMany"},
        "autoscaling": {"mode": "hpa"},
    },
    "options": {
        "options": {
            "kv-cache-dtype": "fp8",
            "kv-cache-memory": 20_000_000_000,
            "prometheus-port": 9000,
            "strict-requests": True,
            "disable-prefix-cache": False,
            "otlp-endpoint": "http://collector.watch:4317",
            "served-model-name": ["chat", "chat-8b"],
            "tokenizer-config-path": "/more/template.jinja",
        },
        "volumes": [{"name": "more", "configMap": {"name": "more"}}],
        "volumeMounts": [{"name": "more", "mountPath": "/more", "readOnly": True}],
        "networkPolicy": {
            "egress": [{"ports": [{"protocol": "TCP", "port": 4317}]}],
            "monitoring": [{"podSelector": {"matchLabels": {"a": "b"}}}],
        },
    },
    "batch": {
        "batch": {"enabled": True, "storageClass": "fast"},
        "options": {"batch-storage-limit": 10_000_000_000},
        "existingSecrets": {"apiKeyFile": {"name": "keys", "key": "all"}},
    },
    "tls": {"tls": {"secret": "certificate"}, "serviceMonitor": {"enabled": True}},
    "haproxy": {
        "balancer": {"mode": "haproxy", "image": {"repository": "haproxy", "tag": "3.0"}},
        "ingress": {"enabled": True, "host": "chat.example"},
    },
    "envoy": {
        "balancer": {
            "mode": "envoy",
            "image": {"repository": "envoyproxy/envoy", "tag": "v1.34.0"},
            "affinity": "none",
        },
    },
    "kept": {
        "existingSecrets": {"apiKey": {"name": "keys", "key": "api-key"}},
        "imagePullSecrets": [{"name": "registry"}],
        "priorityClassName": "high",
        "nodeSelector": {"gpu": "h100"},
        "serviceAccount": {"name": "server"},
        "podAnnotations": {"a": "b"},
        "env": [{"name": "TGI_MAX_BATCH_SIZE", "value": "64"}],
        "networkPolicy": {"clients": []},
        "topologySpread": {"enabled": False},
        "podDisruptionBudget": {"enabled": False},
        "affinity": {"podAntiAffinity": {}},
    },
}


def merged(base: Values, changes: Values) -> Values:
    """`changes` over `base`, objects within objects."""
    result = copy.deepcopy(base)
    for name, value in changes.items():
        both = isinstance(value, dict) and isinstance(result.get(name), dict)
        result[name] = merged(result[name], value) if both else copy.deepcopy(value)
    return result


def helm() -> Any:
    """The module; the test is skipped without it."""
    return pytest.importorskip(
        "helm_python", reason="Helm is not installed: pip install helm-python-sdk"
    )


@cache
def texts(case: str) -> dict[str, str]:
    """Manifests by template."""
    chart = helm().Chart.load(str(CHART))
    return chart.render(merged(BASE, MATRIX[case]), name=NAME, namespace=NAMESPACE)


def objects(case: str) -> Objects:
    """What the cluster would be given."""
    found: Objects = {}
    for path, text in texts(case).items():
        if path.endswith(".yaml"):
            for one in filter(None, yaml.safe_load_all(text)):
                key = (one["kind"], one["metadata"]["name"])
                assert key not in found
                found[key] = one
    return found


def only(case: str, kind: str) -> dict[str, Any]:
    """The one object of a kind; where there are several, that of the server."""
    found = {name: one for (its_kind, name), one in objects(case).items() if its_kind == kind}
    return found[f"{NAME}-penstock"] if len(found) > 1 else next(iter(found.values()))


def workload(case: str) -> dict[str, Any]:
    """`spec` of what makes the pods: a Deployment, or for several hosts a LeaderWorkerSet."""
    kinds = {kind for kind, name in objects(case) if name == f"{NAME}-penstock"}
    kind = "LeaderWorkerSet" if "LeaderWorkerSet" in kinds else "Deployment"
    return dict(only(case, kind)["spec"])


def template(case: str) -> dict[str, Any]:
    """Of the pods that serve."""
    spec = workload(case)
    return dict(spec.get("template") or spec["leaderWorkerTemplate"]["leaderTemplate"])


def refusal(changes: Values) -> str:
    """Helm's words for values that it must not take."""
    module = helm()
    chart = module.Chart.load(str(CHART))
    with pytest.raises(module.HelmError) as error:
        values = merged(BASE, changes)
        chart.validate_schema(values)
        chart.render(values, name=NAME, namespace=NAMESPACE)
    return str(error.value)
