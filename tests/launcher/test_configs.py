"""The launcher's half of the contract: what shards and router are told."""

import json
import os
from pathlib import Path

import pytest

from penstock_launcher.checks import check, check_lengths
from penstock_launcher.configs import (
    Plan,
    http_processes,
    router_program,
    shard_environment,
    shard_program,
    without_secrets,
)
from penstock_launcher.errors import LauncherError
from penstock_launcher.listening import Ports
from penstock_launcher.model import Model
from penstock_launcher.options import Options
from penstock_router.config import RouterConfig
from penstock_shard.config import ShardConfig

MODEL = Model(Path("/models/m"), "org/m", "abc")
FOLDER = Path("/tmp/run")


def plan(options=None, *, shards=2, gpus=0, environ=None):
    return Plan(options or Options(), shards, gpus, environ or {})


def router(run):
    with Ports.take(Options(hostname="127.0.0.1", port=0)) as ports:
        program = router_program(run, MODEL, FOLDER, ports)
        assert program.descriptors == (ports.main.fileno(),)
        return program


def test_router_takes_its_configuration():
    options = Options(api_key=("k", "l,m"), cors_allow_origin=("a", "b"), max_input_length=7)
    program = router(plan(options))
    taken = RouterConfig.from_json(json.dumps(dict(program.config)))
    assert taken.shard_sockets == ("/tmp/run/shard-0.sock", "/tmp/run/shard-1.sock")
    assert (taken.api_key, taken.cors_allow_origin) == (("k", "l,m"), ("a", "b"))
    assert (taken.max_input_tokens, taken.max_total_tokens) == (7, None)
    assert (taken.model_path, taken.model_id, taken.model_sha) == ("/models/m", "org/m", "abc")


def test_shard_takes_its_configuration():
    program = shard_program(plan(Options(dtype="float32")), MODEL, FOLDER, 1)
    taken = ShardConfig.from_json(json.dumps(dict(program.config)))
    assert (taken.dtype, taken.device, taken.socket_folder) == ("float32", None, "/tmp/run")


def test_tokenizer_config_path_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    program = router(plan(Options(tokenizer_config_path="t.json")))
    assert program.config["tokenizer_config_path"] == str(tmp_path / "t.json")


def test_shard_environment(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    environ = {"HF_TOKEN": "t", "API_KEY": "k", "PATH": "/bin", "MASTER_ADDR": "", "RANK": "9"}
    assert shard_environment(plan(environ=environ), 1) == {
        "PATH": "/bin",
        "RANK": "1",
        "WORLD_SIZE": "2",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": "2",
    }


@pytest.mark.parametrize(
    ("cores", "shards", "gpus", "device", "count"),
    [
        (3, 1, 1, None, 0),
        (10, 1, 1, None, 0),  # one alone does not pay
        (11, 1, 1, None, 2),
        (16, 1, 1, None, 3),
        (16, 8, 8, None, 0),  # each shard has a core of its own first
        (32, 2, 2, None, 4),
        (192, 8, 8, None, 4),
        (64, 1, 0, None, 0),  # a CPU's cores are for the shards
        (64, 2, 2, "cpu", 0),
    ],
)
def test_processes_that_serve_http(monkeypatch, cores, shards, gpus, device, count):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    chosen = plan(Options(device=device), shards=shards, gpus=gpus)
    assert http_processes(chosen) == count
    program = router(chosen)
    taken = RouterConfig.from_json(json.dumps(dict(program.config)))
    assert taken.http_processes == count


@pytest.mark.parametrize("gpus", [0, 8])
@pytest.mark.parametrize("count", [0, 1, 64])
def test_as_many_processes_for_http_as_the_operator_says(gpus, count):
    assert http_processes(plan(Options(http_processes=count), gpus=gpus)) == count


def test_operators_own_thread_count_stands():
    assert shard_environment(plan(environ={"OMP_NUM_THREADS": "7"}), 0)["OMP_NUM_THREADS"] == "7"


def test_threads_are_left_alone_on_gpus():
    environment = shard_environment(plan(gpus=2, environ={"CUDA_VISIBLE_DEVICES": "0,1"}), 0)
    assert "OMP_NUM_THREADS" not in environment
    assert environment["CUDA_VISIBLE_DEVICES"] == "0,1"


@pytest.mark.parametrize(
    "options, address, port",
    [
        (Options(master_addr="10.0.0.1"), "10.0.0.1", "29500"),
        (Options(master_port=7), "127.0.0.1", "7"),
        (Options(master_addr="h", master_port=7), "h", "7"),
    ],
)
def test_master(options, address, port):
    environment = shard_environment(plan(options), 0)
    assert (environment["MASTER_ADDR"], environment["MASTER_PORT"]) == (address, port)


def test_no_secret_reaches_argv_or_environment():
    environ = {"API_KEY": "s3cret", "HF_TOKEN": "s3cret", "HF_API_TOKEN": "s3cret"}
    run = plan(Options(api_key=("s3cret", "s3cret-2")), environ=environ)
    for program in (router(run), shard_program(run, MODEL, FOLDER, 0)):
        assert "s3cret" not in str(program.argv) + str(program.environment)
    assert without_secrets(environ) == {}


@pytest.mark.parametrize(
    "options, words",
    [
        (Options(max_input_tokens=5, max_input_length=5), "max-input-length"),
        (Options(max_input_tokens=10, max_total_tokens=10), "10 and 10"),
        (Options(max_input_length=11, max_total_tokens=10), "max-total-tokens"),
        (Options(max_total_tokens=11, max_batch_total_tokens=10), "max-batch-total-tokens"),
        (Options(max_input_tokens=10, max_batch_total_tokens=10), "max-batch-total-tokens"),
        (Options(kv_cache_memory=7, max_batch_total_tokens=10), "7 bytes and 10 tokens"),
        (Options(port=9000, prometheus_port=9000), "prometheus-port"),
        (Options(tokenizer_config_path="/nope.json"), "tokenizer-config-path"),
        (Options(weights_cache_override="/nope"), "weights-cache-override"),
    ],
)
def test_contradictions(options, words):
    with pytest.raises(LauncherError, match=words):
        check(options)


@pytest.mark.parametrize(
    "options, words",
    [
        (Options(max_total_tokens=129), "--max-total-tokens must be at most the model's 128 pos"),
        (Options(max_input_tokens=128), "--max-input-tokens must be less than the model's 128"),
        (Options(max_input_length=128), "--max-input-tokens must be less than the model's 128"),
    ],
)
def test_n1_lengths_beyond_the_model(options, words):
    with pytest.raises(LauncherError, match=words):
        check_lengths(options, 128)


def test_reasonable_options_pass():
    check_lengths(Options(), 128)
    check_lengths(Options(max_total_tokens=128, max_input_tokens=127), 128)
    check(Options())
    check(Options(max_input_tokens=9, max_total_tokens=10, max_batch_total_tokens=10))
