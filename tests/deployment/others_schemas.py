"""What operators of others want of their objects: the part of their definitions that is used."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]
TEXT: Schema = {"type": "string", "minLength": 1}
LABELS: Schema = {"type": "object", "additionalProperties": TEXT, "minProperties": 1}


def strict(properties: dict[str, Schema], *optional: str) -> Schema:
    """An object with these and no others."""
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "required": [name for name in properties if name not in optional],
    }


def several(item: Schema) -> Schema:
    return {"type": "array", "minItems": 1, "items": item}


def integer(low: int, high: int) -> Schema:
    return {"type": "integer", "minimum": low, "maximum": high}


SELECTOR = strict({"matchLabels": LABELS})
RULE = strict(
    {
        "record": TEXT,
        "alert": TEXT,
        "expr": TEXT,
        "for": {"type": "string", "pattern": "^[0-9]+[smh]$"},
        "labels": LABELS,
        "annotations": LABELS,
    },
    *("record", "alert", "for", "labels", "annotations"),
)
# by apiVersion and kind: the schema of `spec`
SPECS: dict[tuple[str, str], Schema] = {
    ("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet"): strict(
        {
            "replicas": integer(0, 10_000),
            "startupPolicy": {"enum": ["LeaderCreated", "LeaderReady"]},
            "rolloutStrategy": strict(
                {
                    "type": {"enum": ["RollingUpdate"]},
                    "rollingUpdateConfiguration": strict(
                        {
                            "maxSurge": integer(0, 10_000),
                            "maxUnavailable": integer(0, 10_000),
                        }
                    ),
                }
            ),
            "leaderWorkerTemplate": strict(
                {
                    "size": integer(2, 64),
                    "restartPolicy": {"enum": ["RecreateGroupOnPodRestart", "None"]},
                    "leaderTemplate": {"type": "object"},
                    "workerTemplate": {"type": "object"},
                }
            ),
        },
        "replicas",
    ),
    ("monitoring.coreos.com/v1", "ServiceMonitor"): strict(
        {
            "selector": SELECTOR,
            "endpoints": several(
                strict(
                    {
                        "port": TEXT,
                        "path": TEXT,
                        "interval": TEXT,
                        "scheme": {"enum": ["http", "https"]},
                        "tlsConfig": strict({"insecureSkipVerify": {"type": "boolean"}}),
                    },
                    *("scheme", "tlsConfig"),
                )
            ),
        }
    ),
    ("monitoring.coreos.com/v1", "PrometheusRule"): strict(
        {"groups": several(strict({"name": TEXT, "rules": several(RULE)}))}
    ),
    ("keda.sh/v1alpha1", "ScaledObject"): strict(
        {
            "scaleTargetRef": strict({"apiVersion": TEXT, "kind": TEXT, "name": TEXT}),
            "minReplicaCount": integer(0, 10_000),
            "maxReplicaCount": integer(1, 10_000),
            "pollingInterval": integer(1, 3600),
            "fallback": strict(
                {"failureThreshold": integer(1, 100), "replicas": integer(0, 10_000)}
            ),
            "advanced": strict({"horizontalPodAutoscalerConfig": {"type": "object"}}),
            "triggers": several(
                strict(
                    {
                        "type": {"const": "prometheus"},
                        "metricType": {"enum": ["Value", "AverageValue"]},
                        "metadata": {"type": "object", "additionalProperties": TEXT},
                    }
                )
            ),
        }
    ),
    ("inference.networking.k8s.io/v1", "InferencePool"): strict(
        {
            "selector": SELECTOR,
            "targetPorts": several(strict({"number": integer(1, 65_535)})),
            "endpointPickerRef": strict(
                {
                    "name": TEXT,
                    "port": strict({"number": integer(1, 65_535)}),
                    "failureMode": {"enum": ["FailOpen", "FailClose"]},
                }
            ),
        }
    ),
}
