"""Memory that runs out in a step of a real server, whose shard may have no more than it has."""

from __future__ import annotations

import json
import resource
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest

from support.checkpoints import make_checkpoint
from support.server import Server, running_server

SPARE = 24 << 20  # bytes that the shard may take beside what it has
VOCABULARY = 60_000  # the log-probabilities of a prompt of 256 tokens take more than twice that


def ask(server: Server, inputs: str, **parameters: object) -> tuple[int, Any]:
    data = json.dumps({"inputs": inputs, "parameters": parameters}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{server.url}/generate", data, headers)
    try:
        with urllib.request.urlopen(request, timeout=120) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def limit(shard: psutil.Process, spare: int) -> None:
    """Let a shard have so many bytes more than it has now."""
    most = shard.memory_info().vms + spare
    resource.prlimit(shard.pid, resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))


@pytest.mark.full
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_batch_without_memory_fails_and_the_next_is_served(tmp_path: Path, ranks: int) -> None:
    """Of two ranks, both know before they begin the step."""
    model = make_checkpoint(tmp_path / "model", "llama2", vocab_size=VOCABULARY)
    arguments = ("--model-id", str(model), "--device", "cpu", "--num-shard", str(ranks))
    with running_server(tmp_path, *arguments) as server:
        status, before = ask(server, "hello", max_new_tokens=4)
        assert status == 200
        shard = server.children("shard")[0]
        limit(shard, SPARE)
        scored = {"max_new_tokens": 1, "decoder_input_details": True, "top_n_tokens": 5}
        status, error = ask(server, "word " * 90, **scored)
        assert (status, error["error_type"]) == (424, "generation")
        assert "did not fit in memory" in error["error"]
        assert ask(server, "hello", max_new_tokens=4) == (200, before)
        assert urllib.request.urlopen(f"{server.url}/health", timeout=60).status == 200
        page = urllib.request.urlopen(f"{server.url}/metrics", timeout=60).read().decode()
        assert 'penstock_refused_sequences_total{kind="out_of_memory"} 1' in page
        assert "from here on steps are smaller" in server.log
        assert shard.is_running() and server.terminate() == 0


@pytest.mark.full
def test_a_prompt_that_one_of_two_ranks_has_no_memory_for(tmp_path: Path) -> None:
    """Whatever it wants: both know before they begin its step, and serve the next."""
    sizes = {"max_position_embeddings": 4096, "intermediate_size": 8192}
    model = make_checkpoint(tmp_path / "model", "llama2", **sizes)
    arguments = ("--model-id", str(model), "--device", "cpu", "--num-shard", "2")
    with running_server(tmp_path, *arguments, "--max-batch-prefill-tokens", "4096") as server:
        status, before = ask(server, "hello", max_new_tokens=4)
        assert status == 200
        limit(server.children("shard")[1], SPARE)
        status, error = ask(server, "word " * 800, max_new_tokens=4)
        assert (status, error["error_type"]) == (424, "generation"), error
        assert ask(server, "hello", max_new_tokens=4) == (200, before)
        assert "from here on steps are smaller" in server.log and "can't allocate" in server.log
        assert server.terminate() == 0
