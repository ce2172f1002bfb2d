"""API keys through the real server: who shares the prefixes that are cached."""

from __future__ import annotations

import json
import urllib.request
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


def test_prefixes_stay_with_their_key(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("of-the-file\n")
    arguments = ("--device", "cpu", "--http-processes", "2", "--api-key-file", str(keys))
    with running_server(tmp_path, *arguments, env={"API_KEY": "one,with-a-comma"}) as server:
        for key in ("one,with-a-comma", "of-the-file"):
            assert cached(server, key) == 0
            assert cached(server, key) > 0  # the next process has it
            assert cached(server, key, "mine") == 0 and cached(server, key, "mine") > 0
        assert "of-the-file" not in server.log and "with-a-comma" not in server.log
