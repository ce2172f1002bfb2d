"""API keys through the real server: who shares the prefixes that are cached."""

from __future__ import annotations

import json
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from support.server import Server, running_server

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
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def environment(pid: int) -> str:
    return Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")


def test_prefixes_stay_with_their_key(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("of-the-file\n")
    arguments = ("--device", "cpu", "--http-processes", "2", "--api-key-file", str(keys))
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
        assert "another-one" not in server.log
        assert "of-the-file" not in server.log and "with-a-comma" not in server.log
