"""What operators ask for, through the real launcher: HTTPS, a prefix, other names of metrics, a
Unix socket, deadlines, and where the start's time went."""

from __future__ import annotations

import json
import re
import socket
import ssl
import time
import urllib.error
import urllib.request
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from support.certificates import Authority
from support.server import SMALL, running_server

CACHE_BYTES = 32 * 2**20


def ask(url: str, body: Any = None, context: ssl.SSLContext | None = None) -> tuple[int, str]:
    headers = {"Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=60, context=context) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_https_behind_a_prefix_with_other_names(tmp_path: Path) -> None:
    signer = Authority(tmp_path)
    own, client = signer.sign("server"), signer.sign("client")
    arguments = ["--device", "cpu", "--http-processes", "1", "--root-path", "/llm"]
    arguments += ["--ssl-certfile", str(own.certificate), "--ssl-keyfile", str(own.key)]
    arguments += ["--ssl-ca-certs", str(signer.file), "--max-request-time", "600"]
    arguments += ["--kv-cache-memory", str(CACHE_BYTES), "--leave-free", str(2**20)]
    names = {"METRIC_NAMES": "vllm,sglang"}
    with running_server(tmp_path, *arguments, env=names) as server:
        assert server.url.startswith("https://127.0.0.1:")
        with pytest.raises(OSError):  # it shows no certificate
            ask(server.url + "/health", context=signer.client())
        context = signer.client(client)
        body: dict[str, Any] = {"inputs": "Hi", "parameters": {"max_new_tokens": 5}}
        for prefix in ("", "/llm"):
            assert ask(f"{server.url}{prefix}/generate", body, context)[0] == 200
        late = {"inputs": "Hi", "parameters": {"max_new_tokens": 900, "ignore_eos": True}}
        status, text = ask(server.url + "/generate", {**late, "timeout": 0.05}, context)
        assert status == 504 and "deadline_exceeded" in text
        deadline = time.monotonic() + 60
        while True:
            _, page = ask(server.url + "/metrics", context=context)
            free = re.search(r"^penstock_kv_blocks_used 0$", page, re.MULTILINE)
            if free and re.search(r"^vllm:num_requests_running\{.*\} 0$", page, re.MULTILINE):
                break
            assert time.monotonic() < deadline, "what was late still runs"
            time.sleep(0.05)
        model = 'model_name="penstock-demo"'
        assert re.search(rf"^vllm:prompt_tokens_total{{{model},.*}} [1-9]", page, re.MULTILINE)
        assert re.search(rf"^sglang:token_usage{{{model},.*}} 0$", page, re.MULTILINE)
        phases = set(re.findall(r'^penstock_start_seconds\{phase="(\S+)"\}', page, re.MULTILINE))
        assert {"check", "import", "load", "warm-up"} <= phases
        parts = dict(
            re.findall(r'^penstock_memory_bytes\{part="(\S+)"\} (\d+)$', page, re.MULTILINE)
        )
        assert parts.keys() == {"weights", "kv_cache"} and int(parts["weights"]) > 0
        # what fits in the bytes that were asked for, to less than a block
        assert 0.9 * CACHE_BYTES < int(parts["kv_cache"]) <= CACHE_BYTES
        [line] = [line for line in server.log.splitlines() if "Penstock ready" in line]
        assert re.search(r"GiB used \(kv cache [\d.]+, weights [\d.]+\)", line)
        assert re.search(r"start [\d.]+ s: check [\d.]+, .*load [\d.]+", line)


def test_a_unix_socket(tmp_path: Path) -> None:
    """In place of a port; gone with the server."""
    path = tmp_path / "llm.sock"
    with running_server(tmp_path, "--device", "cpu", "--uds", str(path), *SMALL) as server:
        assert server.url == f"unix:{path}"
        connection = HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(path))
        body = json.dumps({"inputs": "Hi", "parameters": {"max_new_tokens": 5}})
        connection.request("POST", "/generate", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        assert answer.status == 200 and "generated_text" in json.load(answer)
        connection.close()
        assert server.terminate() == 0
    assert not path.exists()
