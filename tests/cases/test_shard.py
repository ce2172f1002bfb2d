"""Rows of what a shard refuses, against real shards and servers of two ranks."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from penstock_proto import shard_pb2
from support.checkpoints import VOCABULARY, make_checkpoint
from support.local_shard import LocalShard, load_model
from support.server import Server, running_server
from support.shard_driver import Shards, admission, running_shards

SENTENCE = "the model's logits are not finite numbers (NaN or infinity)"
NAN = "~"  # a text of one token, whose embedding is NaN in `server`
# Warmup computes tokens 0 to 63: it does not meet that one.
ARGUMENTS = (
    "--device", "cpu", "--num-shard", "2", "--max-batch-prefill-tokens", "64",
    "--max-input-tokens", "60", "--max-total-tokens", "200",
)  # fmt: skip


def checkpoint(folder: Path, **changes: Callable[[torch.Tensor], object]) -> Path:
    """A model folder in which some tensors are changed, by their names' last parts."""
    make_checkpoint(folder, "llama2")
    tensors = load_file(folder / "model.safetensors")
    for name, change in changes.items():
        [key] = [key for key in tensors if key.endswith(f"{name}.weight")]
        change(tensors[key])
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


# -- C2, W1: the shards' side ----------------------------------------------------------------------


def with_a_bad_token(shards: Shards, bad: int | None) -> list[list[int]]:
    """Four steps of two sequences beside one with this token; the last step also begins another in
    its slot. Returns the tokens of those, of each step."""
    slots, good = [0, 1, 2], {0: [5, 6, 7], 2: [9, 10]}
    tokens = good | {1: [11, bad if bad is not None else 12, 13]}
    shards.send(
        admit=[admission(slot, tokens[slot], [1 + slot]) for slot in slots],
        chunk_slot=slots,
        chunk_length=[len(tokens[slot]) for slot in slots],
    )
    shards.send(decode_changed=True, decode=[1, 0, 2], repeat=2)
    shards.send(
        release=[1], admit=[admission(1, [20, 21], [7])], decode_changed=True, decode=[0, 2],
        chunk_slot=[1], chunk_length=[2],
    )  # fmt: skip
    first, *decoded, last = (shards.receive() for _ in range(4))
    expected = [] if bad is None else [(1, shard_pb2.Refusal.BAD_ADMISSION)]
    assert [(refusal.slot, refusal.kind) for refusal in first.refused] == expected
    if bad is not None:
        assert f"below {VOCABULARY}" in first.refused[0].message
    assert not any(result.refused or result.HasField("error") for result in (*decoded, last))
    found = [[first.token[0], first.token[2]]]
    found += [list(result.token[1:]) for result in decoded]
    return [*found, list(last.token)]


@pytest.mark.parametrize("world_size", [1, 2], ids=["W1-one-rank", "C2-two-ranks"])
def test_an_id_beyond_the_vocabulary_ends_nothing_else(tmp_path: Path, world_size: int) -> None:
    folder = checkpoint(tmp_path / "model")
    with running_shards(folder, tmp_path / "sockets", world_size) as shards:
        shards.warm_up()
        expected = with_a_bad_token(shards, None)
        shards.send(release=[0, 1, 2], decode_changed=True)
        shards.receive()
        for bad in (VOCABULARY, 2**31 - 1, -1):
            assert with_a_bad_token(shards, bad) == expected
            shards.send(release=[0, 1, 2], decode_changed=True)
            shards.receive()
        assert shards.close() == [0] * world_size


def test_a_command_that_is_wrong_as_a_whole_still_ends_the_group(tmp_path: Path) -> None:
    """No two ranks could agree on what it means."""
    with running_shards(checkpoint(tmp_path / "model"), tmp_path / "sockets", 2) as shards:
        shards.warm_up()
        shards.send(release=[3])
        error = shards.receive().error
        assert error.kind == shard_pb2.StepError.BAD_COMMAND and "free slot 3" in error.message
        assert [process.wait(60) for process in shards.processes] == [1, 1]


# -- n7 --------------------------------------------------------------------------------------------


class Answer(NamedTuple):
    status: int
    text: str

    @property
    def body(self) -> Any:
        return json.loads(self.text)


def ask(server: Server, path: str, body: object = None) -> Answer:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(server.url + path, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return Answer(reply.status, reply.read().decode())
    except urllib.error.HTTPError as error:
        return Answer(error.code, error.read().decode())


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> int:
    folder = make_checkpoint(tmp_path_factory.mktemp("plain") / "model", "llama2")
    [token] = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(NAN).ids
    assert token >= 64
    return token


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, token: int) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    model = checkpoint(folder / "model", embed_tokens=lambda rows: rows[token].fill_(torch.nan))
    with running_server(folder, "--model-id", str(model), *ARGUMENTS) as server:
        yield server


GREEDY = {"max_new_tokens": 8, "details": True, "decoder_input_details": False}
WAYS: dict[str, dict[str, object]] = {
    "n7-greedy": {},
    "n7-sampled": {"do_sample": True, "seed": 3},
    "n7-cut": {"do_sample": True, "seed": 3, "top_p": 0.9, "top_k": 20},
    "n7-typical": {"do_sample": True, "seed": 3, "typical_p": 0.9},
    "n7-penalised": {"repetition_penalty": 1.3},
    "n7-top": {"top_n_tokens": 3},
    "n7-prompt": {"decoder_input_details": True},
}


@pytest.mark.parametrize("way", WAYS)
def test_nan_is_an_error_of_its_own_request(server: Server, way: str) -> None:
    before = ask(server, "/generate", {"inputs": "hello", "parameters": GREEDY})
    assert before.status == 200
    count = refusals(server)
    answer = ask(server, "/generate", {"inputs": f"he{NAN}llo", "parameters": GREEDY | WAYS[way]})
    assert answer == (424, answer.text)
    assert answer.body == {
        "error": f"Request failed during generation: {SENTENCE}",
        "error_type": "generation",
    }
    assert refusals(server) == count + 1
    again = ask(server, "/generate", {"inputs": "hello", "parameters": GREEDY})
    assert again.body == before.body
    assert ask(server, "/health").status == 200


def test_nan_that_comes_in_a_stream_is_its_last_event(server: Server, token: int) -> None:
    """The model is made to write that token, which is shown, and then to read it."""
    body = {
        "prompt": "hello", "max_tokens": 8, "stream": True, "temperature": 0,
        "logit_bias": {str(token): 100},
    }  # fmt: skip
    answer = ask(server, "/v1/completions", body)
    events = [line[5:].strip() for line in answer.text.splitlines() if line.startswith("data:")]
    assert answer.status == 200 and len(events) == 2
    assert json.loads(events[0])["choices"][0]["text"] == NAN
    assert SENTENCE in events[1] and json.loads(events[1])["error_type"] == "generation"


def test_nan_ends_one_of_those_that_run(server: Server) -> None:
    """Their texts are those of a quiet server, and the log has a line now and then."""
    asked = {"inputs": "hello", "parameters": {"max_new_tokens": 60, "ignore_eos": True}}
    expected = ask(server, "/generate", asked)
    bodies = [asked if i % 3 else {"inputs": f"{i} {NAN}"} for i in range(36)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda body: ask(server, "/generate", body), bodies))
    for body, answer in zip(bodies, answers, strict=True):
        assert answer == expected if body is asked else answer.status == 424
    assert 1 <= server.log.count("refused by the shards") <= 10 < refusals(server)


def refusals(server: Server) -> int:
    line = 'penstock_refused_sequences_total{kind="not_a_number"} '
    return int(ask(server, "/metrics").text.split(line)[1].split("\n")[0])


# -- M3 --------------------------------------------------------------------------------------------

BROKEN: dict[str, tuple[str, Callable[[torch.Tensor], object], str]] = {
    "M3-nan": (
        "layers.1.mlp.up_proj", lambda weight: weight[2].fill_(torch.nan),
        "layers.1.mlp.up holds NaN in float32",
    ),
    "M3-norm-inf": (
        "layers.0.input_layernorm", lambda weight: weight.fill_(torch.inf),
        "layers.0.input_norm.weight holds infinity in float32",
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", BROKEN)
def test_what_is_not_finite_is_named(tmp_path: Path, row: str) -> None:
    name, change, sentence = BROKEN[row]
    loaded = load_model(checkpoint(tmp_path / "model", **{name: change}))
    with pytest.raises(ValueError, match=f"at warmup: {re.escape(sentence)}"):
        LocalShard(loaded)


def test_a_model_with_nan_does_not_start(tmp_path: Path) -> None:
    """Of two ranks the first says what the other may have found."""
    name, change, sentence = BROKEN["M3-nan"]
    model = checkpoint(tmp_path / "model", **{name: change})
    server = Server(["--model-id", str(model), *ARGUMENTS], tmp_path, None)
    try:
        assert server.process.wait(60) != 0
    finally:
        server.process.kill()
    assert "at warmup" in server.log and sentence in server.log
    assert "not finite numbers" in server.last_line, server.last_line
    assert "Traceback" not in server.log
