"""Starts that failed, or should have: a sentence in the last line, before anything is loaded."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from penstock_shard.check import check
from support.checkpoints import make_checkpoint
from support.server import Server, running_server
from support.small_hub import TOKEN, Hub, running_hub
from support.tgi_metrics import EMPTY_PANELS, PANELS, values

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Start:
    """A launcher that has ended."""

    code: int
    log: str

    @property
    def reason(self) -> str:
        """What the last line says."""
        return self.log.strip().rsplit("\n", 1)[-1].partition(" ERROR launcher: ")[2]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("start") / "model", "llama2")


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint of the test's own."""
    return Path(shutil.copytree(checkpoint, tmp_path / "model"))


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., Start]:
    def run(*arguments: object, env: dict[str, str] | None = None) -> Start:
        clean = {n: v for n, v in os.environ.items() if not n.startswith(("HF_", "HUGGING"))}
        command = [sys.executable, "-m", "penstock_launcher", "--hostname", "127.0.0.1"]
        command += ["--shard-uds-path", str(tmp_path / "run"), *map(str, arguments)]
        result = subprocess.run(
            command, env=clean | (env or {}), capture_output=True, text=True, timeout=60
        )
        assert result.stderr == "" and "Traceback" not in result.stdout, result.stdout
        return Start(result.returncode, result.stdout)

    return run


def configure(folder: Path, **fields: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))


# -- n1: ports and limits ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "more"),
    [("port", ()), ("prometheus-port", ("--port", 0)), ("port", ("--http-processes", 2))],
    ids=["n1-port", "n1-prometheus-port", "n1-port-of-http-processes"],
)
def test_n1_ports(start: Callable[..., Start], option: str, more: tuple[object, ...]) -> None:
    """Before the model is even looked for: the hub does not know this one."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = start(*more, f"--{option}", port, "--model-id", "org/none")
    reason = f"cannot listen at 127.0.0.1 port {port} (--{option}): Address already in use"
    advice = f"; end what listens there, or give another --{option}"
    assert (ended.code, ended.reason) == (1, reason + advice)
    assert ended.log.count("already in use") == 1


@pytest.mark.parametrize(
    ("option", "value", "rule"),
    [
        ("max-total-tokens", 513, "--max-total-tokens must be at most the model's 512 positions"),
        ("max-input-tokens", 512, "--max-input-tokens must be less than the model's 512 positions"),
    ],
    ids=["n1-total", "n1-input"],
)
def test_n1_limits(
    start: Callable[..., Start], checkpoint: Path, option: str, value: int, rule: str
) -> None:
    ended = start("--port", 0, "--model-id", checkpoint, f"--{option}", value)
    assert ended.code == 1 and ended.reason.startswith(rule) and f"{value} was" in ended.reason
    assert ended.log.count("positions") == 1 and "shard 0" not in ended.log


def test_n1_shards(start: Callable[..., Start], checkpoint: Path) -> None:
    ended = start("--model-id", checkpoint, "--port", 0, "--device", "cpu", "--num-shard", 3)
    reason = "num_attention_heads 4 cannot be split evenly over 3 shards"
    assert (ended.code, ended.reason) == (1, reason) and ended.log.count(reason) == 1


# -- M3, M7: numbers of config.json --------------------------------------------------------------

NUMBERS: dict[str, tuple[dict[str, Any], str]] = {
    "M3-eps-nan": ({"rms_norm_eps": float("nan")}, "rms_norm_eps must be a number above 0"),
    "M3-eps-negative": ({"rms_norm_eps": -1e-5}, "rms_norm_eps must be a number above 0"),
    "M3-window-0": (
        {"architectures": ["MistralForCausalLM"], "sliding_window": 0},
        "sliding_window must be a whole number from 1",
    ),
    "M3-vocabulary": ({"vocab_size": 0}, "vocab_size must be a whole number from 1"),
    "M3-head-odd": ({"head_dim": 15}, "head_dim 15 is odd"),
    "M3-heads": ({"num_key_value_heads": 3}, "4 is no multiple of num_key_value_heads 3"),
    "M3-theta": (
        {"rope_parameters": {"rope_theta": 0}},
        "rope_theta must be a number above 1",
    ),
    "M7-layers": ({"num_hidden_layers": 10**9}, "num_hidden_layers must be a whole number"),
    "M7-hidden": ({"hidden_size": 2**20}, "hidden_size must be a whole number from 1 to 131072"),
    "M7-positions": ({"max_position_embeddings": 10**12}, "max_position_embeddings must be"),
    "M7-string": ({"intermediate_size": "96"}, "intermediate_size must be a whole number"),
    "M7-estimate": (
        {"hidden_size": 2**16, "num_hidden_layers": 1000},
        "(num_hidden_layers 1000, hidden_size 65536, intermediate_size 96, vocab_size 301)",
    ),
}


@pytest.mark.parametrize("row", NUMBERS)
def test_m3_m7_numbers(folder: Path, row: str) -> None:
    """As the process says it that the launcher starts before all others."""
    fields, words = NUMBERS[row]
    configure(folder, **fields)
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        check(folder, "auto", 1)
    assert "config.json" in str(caught.value)


@pytest.mark.parametrize("row", ["M3-eps-nan", "M7-layers", "M7-estimate"])
def test_m3_m7_end_the_start(start: Callable[..., Start], folder: Path, row: str) -> None:
    """Once, whatever the number of shards."""
    fields, words = NUMBERS[row]
    configure(folder, **fields)
    ended = start("--port", 0, "--model-id", folder, "--num-shard", 2, "--device", "cpu")
    assert ended.code == 1 and words in ended.reason
    assert ended.log.count(words) == 1 and "shard 0" not in ended.log


# -- M6: what is no file of the folder -----------------------------------------------------------


@pytest.mark.parametrize("name", ["chat_template.jinja", WEIGHTS])
def test_m6_links(start: Callable[..., Start], folder: Path, name: str) -> None:
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to("/etc/passwd")
    ended = start("--port", 0, "--model-id", folder)
    assert ended.code == 1
    assert f"{name} is a link that leads out of its folder, to /etc/passwd" in ended.reason


@pytest.mark.parametrize("name", ["config.json", WEIGHTS])
def test_m6_pipes(start: Callable[..., Start], folder: Path, name: str) -> None:
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    ended = start("--port", 0, "--model-id", folder)
    assert ended.code == 1 and f"{name} is a pipe, not a file" in ended.reason


def test_m6_weights_elsewhere(start: Callable[..., Start], checkpoint: Path, folder: Path) -> None:
    """A folder that the operator names is looked at as well."""
    (folder / WEIGHTS).unlink()
    os.mkfifo(folder / WEIGHTS)
    ended = start("--port", 0, "--model-id", checkpoint, "--weights-cache-override", folder)
    assert ended.code == 1 and f"{folder}/{WEIGHTS} is a pipe" in ended.reason


def test_m6_tokenizer_config(start: Callable[..., Start], tmp_path: Path, checkpoint: Path) -> None:
    os.mkfifo(tmp_path / "t.json")
    ended = start("--model-id", checkpoint, "--tokenizer-config-path", tmp_path / "t.json")
    reason = f"--tokenizer-config-path {tmp_path}/t.json is a pipe, not a file"
    assert (ended.code, ended.reason) == (1, reason)


# -- n4: what is missing -------------------------------------------------------------------------


def test_n4_missing_tensors(start: Callable[..., Start], folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    for name in ("lm_head.weight", "model.layers.2.mlp.up_proj.weight"):
        del tensors[name]
    tensors["more"] = load_file(folder / WEIGHTS)["lm_head.weight"].repeat(9, 1)
    save_file(tensors, folder / WEIGHTS)
    ended = start("--port", 0, "--model-id", folder)
    assert ended.code == 1
    assert ended.reason.endswith(
        "the checkpoint does not fit config.json: "
        "tensor model.layers.2.mlp.up_proj.weight is missing; tensor lm_head.weight is missing"
    )


def test_n4_damaged_header(start: Callable[..., Start], folder: Path) -> None:
    """It claims more bytes than the file has."""
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes((2**62).to_bytes(8, "little") + data[8:])
    ended = start("--port", 0, "--model-id", folder)
    assert ended.code == 1 and f"{WEIGHTS} is damaged or no safetensors file" in ended.reason


# -- W10, W11: the hub ---------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment in which a small hub is the hub. Its models have an empty config.json."""
    with running_hub() as url:
        yield {"HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "home")}


FETCHED = "config.json: architecture (none given) is not supported"


def test_w10_hub_refuses(
    start: Callable[..., Start], hub: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert FETCHED in start("--port", 0, "--model-id", "org/good", env=hub).reason
    monkeypatch.setattr(Hub, "status", 503)
    ended = start("--port", 0, "--model-id", "org/good", env=hub)
    assert FETCHED in ended.reason
    assert "WARN download" in ended.log and ": serving org/good from the cache" in ended.log


@pytest.mark.parametrize("way", ["HUGGING_FACE_HUB_TOKEN", "login"])
def test_w11_token(
    start: Callable[..., Start], hub: dict[str, str], tmp_path: Path, way: str
) -> None:
    if way == "login":
        (tmp_path / "home").mkdir()
        (tmp_path / "home" / "token").write_text(TOKEN + "\n")
    env = hub if way == "login" else hub | {way: TOKEN}
    ended = start("--port", 0, "--model-id", "org/private", env=env)
    assert FETCHED in ended.reason and TOKEN not in ended.log


# -- n3, n4, n6, W15: one server that serves them all --------------------------------------------


@pytest.fixture(scope="module", params=[0, 2], ids=["one-process", "http-processes"])
def odd(
    request: pytest.FixtureRequest, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A folder without `architectures`, with a stale index and files of others, in a pod."""
    folder = Path(shutil.copytree(checkpoint, tmp_path_factory.mktemp("odd") / "model"))
    configure(folder, architectures=["LLaMAForCausalLM"])
    shutil.copy(folder / WEIGHTS, folder / "consolidated.safetensors")
    (folder / "adapter_model.safetensors").write_bytes(b"no safetensors at all")
    index = {"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    services = {
        "PORT": "tcp://10.96.3.1:80",
        "PROMETHEUS_PORT": "tcp://10.96.3.7:9090",
        "MASTER_PORT": "tcp://10.96.3.8:7",
    }
    processes = ("--http-processes", str(request.param))
    arguments = ("--model-id", str(folder), *processes, "--hostname", "::")
    with running_server(tmp_path_factory.mktemp("run"), *arguments, env=services) as server:
        yield server


def generate(server: Server, host: str) -> int:
    port = server.url.rsplit(":", 1)[1]
    body = json.dumps({"inputs": "The river", "parameters": {"max_new_tokens": 2}}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"http://{host}:{port}/generate", body, headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return int(answer.status)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"], ids=["W15-ipv4", "W15-ipv6"])
def test_w15_one_port_for_both(odd: Server, host: str) -> None:
    if not Path("/proc/net/if_inet6").exists():
        pytest.skip("this machine has no IPv6")
    assert generate(odd, host) == 200


def test_w15_an_address_has_one_name(odd: Server) -> None:
    """Of IPv4 through a socket of IPv6 it is the one that a client itself would say."""
    with socket.create_connection(("127.0.0.1", int(odd.url.rsplit(":", 1)[1]))) as client:
        client.sendall(b"no HTTP\r\n\r\n")
        while client.recv(4096):
            pass
    deadline = time.monotonic() + 60
    while "malformed request" not in odd.log:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    [line] = [line for line in odd.log.splitlines() if "malformed request" in line]
    assert line.endswith(" client=127.0.0.1")


def test_n3_served_by_model_type(odd: Server) -> None:
    assert "loaded LlamaForCausalLM" in odd.log and generate(odd, "127.0.0.1") == 200


def test_n4_files_of_others_are_named(odd: Server) -> None:
    notice = f"{WEIGHTS} holds the weights: adapter_model.safetensors, consolidated.safetensors"
    assert odd.log.count(f"WARN launcher: not served, as {notice}") == 1


@pytest.mark.parametrize("variable", ["PROMETHEUS_PORT", "MASTER_PORT"])
def test_n6_variables_of_kubernetes(odd: Server, variable: str) -> None:
    assert odd.log.count(f"WARN launcher: environment variable {variable}=tcp://10.96.3.") == 1


# -- n8: TGI's dashboard -------------------------------------------------------------------------

BETWEEN = {"tgi_queue_size", "tgi_batch_current_size", "tgi_batch_current_max_tokens"}
SELDOM = {"tgi_request_failure", "tgi_batch_concat"}


def test_n8_panels_have_data(odd: Server) -> None:
    """After one answer, all but those that show the present, failures and full batches."""
    generate(odd, "127.0.0.1")
    port = odd.url.rsplit(":", 1)[1]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as page:
        text = page.read().decode()
    for panel, selectors in PANELS.items():
        for series in selectors if panel not in EMPTY_PANELS else ():
            found = values(text, series)
            assert found if series in BETWEEN | SELDOM else any(found), (panel, series)
