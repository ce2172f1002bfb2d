"""Which launcher options the chart takes, and writes them into its schema:
`python scripts/chart_options.py`. Behind it run `python scripts/chart_readme.py`.

An option is set by a value of the chart's own, or is one of `options`, or has no meaning in a pod.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from penstock_launcher.kinds import Kind, json_object
from penstock_launcher.options import OPTIONS, Option

SCHEMA = Path(__file__).parent.parent / "charts" / "penstock" / "values.schema.json"

# By the chart's own values, which set more than the option.
SET_BY = {
    "model_id": "model.id",
    "revision": "model.revision",
    "num_shard": "numShard",
    "sharded": "numShard",
    "nnodes": "hosts.count",
    "node_rank": "hosts.count",
    "master_addr": "hosts.count",
    "master_port": "hosts.port",
    "hosts_secret_file": "hosts.secret.name",
    "device": "device",
    "port": "port",
    "ssl_certfile": "tls.secret",
    "ssl_keyfile": "tls.secret",
    "api_key": "existingSecrets.apiKey.name",
    "api_key_file": "existingSecrets.apiKeyFile.name",
    "huggingface_hub_cache": "cache.enabled",
    "batch_folder": "batch.enabled",
    "graceful_termination_timeout": "drain.timeoutSeconds",
}
ALWAYS = ("hostname", "json_output")  # whatever the values
# What no pod of the chart can do. `args` passes them on all the same, but for those set above.
LEFT_OUT = {
    "max_input_length": "older name of max-input-tokens",
    "ssl_ca_certs": "the kubelet's probes have no certificate",
    "hosts_certs": "every host has a certificate of its own; hosts.secret makes them",
    "uds": "probes and services call by port",
    "offline_socket": "nobody else is in the pod",
    "env": "for bug reports",
}
RANGE = re.compile(r"a (?:whole )?number(?: of \w+)? (from|above) (\S+) (?:and at most|to) (\S+)")
OBJECT = json_object().metavar
STRING = {"type": "string", "minLength": 1}


def rule(kind: Kind) -> dict[str, Any]:
    """A value of an option as JSON's schema has it."""
    if kind.repeated:
        one = Kind(kind.metavar, kind.rule, kind.parse)
        return {"type": "array", "items": rule(one)}
    if not kind.takes_value:
        return {"type": "boolean"}
    if kind.metavar == OBJECT:
        return {"type": "object"}
    names = kind.metavar.strip("{}").split(",") if kind.metavar.startswith("{") else []
    if names and OBJECT not in names:
        return {"type": "string", "enum": names}
    if found := RANGE.fullmatch(kind.rule):
        low, high = float(found[2]), float(found[3])
        least = "minimum" if found[1] == "from" else "exclusiveMinimum"
        bounds = {least: low, "maximum": high}
        if kind.counts:
            return {"type": "integer", **{name: int(value) for name, value in bounds.items()}}
        return {"type": "number", **bounds}
    return STRING


def described(option: Option) -> dict[str, Any]:
    text = option.help + (f" (default: {option.default_text})" if option.default_text else "")
    return {**rule(option.kind), "description": f"`{option.flag}`: {text}".replace("|", "or")}


def options() -> dict[str, Any]:
    """The value `options` of the chart."""
    taken = [one for one in OPTIONS if one.name not in (*SET_BY, *ALWAYS, *LEFT_OUT)]
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {one.flag.removeprefix("--"): described(one) for one in taken},
    }


def refused_arguments() -> str:
    """A pattern of what `args` may not hold, as values set it."""
    names = sorted(name.replace("_", "-") for name in (*SET_BY, *ALWAYS))
    return f"^--({'|'.join(names)})(=|$)"


def schema(text: str) -> str:
    """values.schema.json as the options make it."""
    tree = json.loads(text)
    tree["properties"]["options"] = options()
    tree["properties"]["args"]["items"]["not"] = {"pattern": refused_arguments()}
    return json.dumps(tree, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    SCHEMA.write_text(schema(SCHEMA.read_text()))
