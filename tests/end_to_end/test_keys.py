"""API keys through the real server: who shares the prefixes that are cached."""

from __future__ import annotations

import hashlib
import json
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from support.server import SMALL, Server, running_server

PROMPT = "Tell me about the rivers of France, and then about the mountains beside them. " * 3


def cached(server: Server, key: str, salt: str | None = None) -> int:
    """Prompt tokens that the prefix cache had."""
    body = {"prompt": PROMPT, "max_tokens": 1, "cache_salt": salt}
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    url = f"{server.url}/v1/completions"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return int(answer.headers["x-cached-tokens"])


def refused(server: Server, key: str) -> bool:
    """By all of the processes: connections take turns."""
    codes = []
    for _ in range(4):
        try:
            cached(server, key)
            codes.append(200)
        except urllib.error.HTTPError as error:
            codes.append(error.code)
    return codes == [401] * 4


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


TABLES = """
[[key]]
name = "limited"
key = "key-of-limited"
requests-per-minute = 6
tokens-per-minute = 3000
concurrent-requests = 2
[[key]]
name = "free"
sha256 = "SHA"
"""


def ask(server: Server, key: str, path: str = "/v1/completions") -> tuple[int, dict[str, str]]:
    """Status and headers; each connection may go to another process."""
    body = {"prompt": "one two three", "max_tokens": 3} if path.startswith("/v1") else None
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    request = urllib.request.Request(server.url + path, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, {k.lower(): v for k, v in answer.headers.items()}
    except urllib.error.HTTPError as error:
        return error.code, {k.lower(): v for k, v in error.headers.items()}


def samples(server: Server) -> dict[str, float]:
    with urllib.request.urlopen(server.url + "/metrics", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    found = [line.rsplit(" ", 1) for line in lines if line.startswith("penstock_key_")]
    return {name.removeprefix("penstock_key_"): float(value) for name, value in found}


def test_limits_hold_over_all_processes(tmp_path: Path) -> None:
    """Two HTTP processes, to which connections go in turn: six requests a minute are six, not
    twelve, and what was used stays used when the file is read again."""
    keys = tmp_path / "keys.toml"
    digest = hashlib.sha256(b"key-of-free").hexdigest()
    keys.write_text(TABLES.replace("SHA", digest))
    arguments = ("--device", "cpu", "--http-processes", "2", "--api-key-file", str(keys), *SMALL)
    with running_server(tmp_path, *arguments) as server:
        started = time.monotonic()
        answers = [ask(server, "key-of-limited") for _ in range(16)]
        served = [headers for status, headers in answers if status == 200]
        # what flows in meanwhile: one each ten seconds
        assert 6 <= len(served) <= 6 + (time.monotonic() - started) / 10 + 1
        assert {status for status, _ in answers} == {200, 429}
        assert [int(h["x-ratelimit-remaining-requests"]) for h in served[:3]] == [5, 4, 3]
        assert {h["x-ratelimit-limit-tokens"] for h in served} == {"3000"}
        refused = next(headers for status, headers in answers if status == 429)
        assert 1 <= int(refused["retry-after"]) <= 10
        assert [ask(server, "key-of-free")[0] for _ in range(12)] == [200] * 12
        until(lambda: samples(server)['generated_tokens_total{key="free"}'] >= 12 * 3)
        found = samples(server)
        assert found['requests_total{key="limited"}'] == len(served)
        assert found['refused_total{key="limited"}'] == 16 - len(served)
        assert found['requests_total{key="free"}'] == 12
        assert found['generated_tokens_total{key="free"}'] == 12 * 3
        assert found['prompt_tokens_total{key="free"}'] > 12
        changed = TABLES.replace("SHA", digest).replace("minute = 6\n", "minute = 5\n")
        keys.write_text(changed + '[[key]]\nname = "new"\nkey = "key-of-new"\n')
        server.process.send_signal(signal.SIGHUP)
        until(lambda: "3 API keys count" in server.log)
        until(lambda: [ask(server, "key-of-new")[0] for _ in range(4)] == [200] * 4)
        answers = [ask(server, "key-of-limited") for _ in range(16)]
        assert 16 - [status for status, _ in answers].count(429) <= (
            (time.monotonic() - started) / 10 + 1
        )
        assert samples(server)['requests_total{key="limited"}'] >= len(served)
        until(lambda: "key=limited" in server.log or '"key":"limited"' in server.log)
        for secret in ("key-of-limited", "key-of-free", "key-of-new", digest):
            assert secret not in server.log


def environment(pid: int) -> str:
    return Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")


def test_prefixes_stay_with_their_key(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("of-the-file\n")
    arguments = ("--device", "cpu", "--http-processes", "2", "--api-key-file", str(keys), *SMALL)
    with running_server(tmp_path, *arguments, env={"API_KEY": "one,with-a-comma"}) as server:
        processes = server.descendants()
        assert any("janitor" in " ".join(process.cmdline()) for process in processes)
        assert not [p for p in processes if "one,with-a-comma" in environment(p.pid)]
        for key in ("one,with-a-comma", "of-the-file"):
            assert cached(server, key) == 0
            assert cached(server, key) > 0  # the next process has it
            assert cached(server, key, "mine") == 0 and cached(server, key, "mine") > 0
        assert cached(server, "of-the-file") > 0
        keys.write_text("\n")
        server.process.send_signal(signal.SIGHUP)
        until(lambda: "holds no key" in server.log)
        assert cached(server, "of-the-file") > 0, "a file that cannot be used changes nothing"
        keys.write_text("another-one\n")
        server.process.send_signal(signal.SIGHUP)
        until(lambda: "2 API keys count" in server.log)
        for _ in range(2):  # each of the processes
            until(lambda: refused(server, "of-the-file"))
            assert cached(server, "one,with-a-comma") > 0
            assert cached(server, "another-one") >= 0
        keys.write_text("a-third-one\n")  # nobody says so
        until(lambda: "the file has changed: 2 API keys count" in server.log)
        for _ in range(2):
            until(lambda: refused(server, "another-one"))
        assert "another-one" not in server.log and "a-third-one" not in server.log
        assert "of-the-file" not in server.log and "with-a-comma" not in server.log
