"""`penstock migrate`: what comes out starts Penstock, and nothing is lost without a word."""

from __future__ import annotations

import io
import re
import shlex
from pathlib import Path

import pytest
import yaml

from penstock_launcher.command_line import parse
from penstock_launcher.migration.__main__ import main, migrate_text
from penstock_launcher.migration.arguments import translate
from penstock_launcher.migration.commands import SERVERS, Migrated, migrate_words
from penstock_launcher.migration.rows import OPTION, Row, Server
from penstock_launcher.options import Options

ROOT = Path(__file__).parents[2]
TGI, VLLM, SGLANG = SERVERS
EACH = [(server, row, flag) for server in SERVERS for row in server.rows for flag in row.flags]
IDS = [f"{server.name}{flag}" for server, _, flag in EACH]
# a value that each option takes
TEXTS = {
    "num_shard": "2", "port": "81", "hostname": "::1", "cuda_memory_fraction": "0.5",
    "quantize": "awq", "dtype": "half", "kv_cache_dtype": "fp8_e5m2", "load_format": "dummy",
    "generation_config": "none", "sharded": "true", "cuda_graphs": "1", "device": "cpu",
    "log_level": "warn", "root_path": "/llm", "max_top_n_tokens": "7", "waiting_served_ratio": "1",
    "watermark_gamma": "0.2", "watermark_delta": "1", "nnodes": "2", "node_rank": "1",
    "graceful_termination_timeout": "5", "kv_block_size": "32", "master_port": "1234",
    "hf_overrides": "{}", "override_generation_config": "{}", "rope_scaling": "linear",
    "default_chat_template_kwargs": "{}", "rope_factor": "2",
    "prometheus_port": "1234", "validation_workers": "3", "metric_names": "vllm",
}  # fmt: skip
KINDS = {"N": "777", "X": "0.5"}


def text_of(row: Row) -> str:
    if row.option is None:
        return "7"
    option = OPTION[row.option]
    return TEXTS.get(row.option) or KINDS.get(option.kind.metavar, "/some/text")


def migrated(text: str) -> Migrated:
    result = migrate_text(text)
    assert result is not None
    return result


def started(line: str) -> Options:
    """What the launcher makes of a line that begins with `penstock serve`."""
    words = shlex.split(line)
    assert words[:2] == ["penstock", "serve"]
    return parse(words[2:], {})[0]


@pytest.mark.parametrize(("server", "row", "flag"), EACH, ids=IDS)
def test_each_flag_is_an_option_or_a_note(server: Server, row: Row, flag: str) -> None:
    argv = [flag, text_of(row)] if row.takes_value else [flag]
    result = translate(server, argv)
    options, notices = parse(result.words(), {})
    assert notices == []
    if row.option is None:
        assert result.words() == []
        (note,) = result.notes
        assert note.subject == " ".join(argv) and note.served == row.served and row.note
        assert row.served or str(note).startswith(f"NOT SERVED: {flag}")
    else:
        assert [note.text for note in result.notes] == ([row.note] if row.note else [])
        changed = getattr(options, row.option) != OPTION[row.option].default
        assert changed or row.says == "false"


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)
def test_no_flag_has_two_rows(server: Server) -> None:
    flags = [flag for row in server.rows for flag in row.flags]
    assert len(flags) == len(set(flags)) > 40


def test_a_command_line_of_vllm() -> None:
    result = migrated(
        "vllm serve org/name --host 0.0.0.0 --max_model_len=8k -tp 2 --dtype auto \\\n"
        "  --cudagraph-capture-sizes 1 2 4 --enforce-eager --enable-lora --no-such thing"
    )
    options = started(result.text)
    assert (options.model_id, options.port, options.num_shard) == ("org/name", 8000, 2)
    assert (options.max_total_tokens, options.cuda_graphs) == (8000, (0,))
    refused = [note.subject for note in result.notes if not note.served]
    assert refused == ["--enable-lora", "--no-such thing"]
    assert any("--max-concurrent-requests is 128" in str(note) for note in result.notes)


def test_sglang_listens_where_it_did() -> None:
    options = started(migrated("python3 -m sglang.launch_server --model-path a/b").text)
    assert (options.hostname, options.port) == ("127.0.0.1", 30000)
    kv = started(migrated("sglang serve --model a/b --max-total-tokens 5000").text)
    assert (kv.max_batch_total_tokens, kv.max_total_tokens) == (5000, None)


def test_a_script_keeps_what_is_no_server() -> None:
    result = migrated(
        "set -e\n"
        "docker run --gpus all -p 8080:8000 -e VLLM_API_KEY=k -e VLLM_USE_V1=1 "
        '-v ~/hub:/root/.cache/huggingface vllm/vllm-openai:v0.9 --model "$MODEL" > log 2>&1 &\n'
        "CUDA_VISIBLE_DEVICES=0 text-generation-launcher --model-id a/b --speculate 0 && echo ok"
    )
    first, second, third = result.text.splitlines()
    assert first == "set -e"
    assert second == (
        "docker run --gpus all -p 8080:8000 -e API_KEY=k -v ~/hub:/root/.cache/huggingface "
        "penstock:latest --model-id $MODEL --port 8000 > log 2>&1 &"
    )
    assert third == "CUDA_VISIBLE_DEVICES=0 penstock serve --model-id a/b && echo ok"
    said = "\n".join(map(str, result.notes))
    assert "/root/.cache/huggingface is where vLLM's" in said and "VLLM_USE_V1" in said


def test_a_value_that_breaks_the_rule_is_a_note_without_secrets() -> None:
    result = migrate_words(["vllm", "serve", "m", "-tp", "900", "--api-key", "hunter\n22"])
    assert result is not None and "900" not in result.text
    said = "\n".join(map(str, result.notes))
    assert "NOT SERVED: -tp was left out: --num-shard must be a whole number" in said
    assert "hunter" not in said


COMPOSE = """
services:
  chat:
    image: ghcr.io/huggingface/text-generation-inference:3.3
    ports: ["8080:80"]
    environment: ["HUGGING_FACE_HUB_TOKEN=${HF_TOKEN}", "SPECULATE=3", "USAGE_STATS=off"]
    command: --model-id a/b --max-total-tokens 4096
  other:
    image: nginx:1
    command: ["--model", "x"]
  code:
    image: vllm/vllm-openai:v0.9
    command: ["--model", "x/y", "-tp", "${TP}"]
    environment: {VLLM_API_KEY: k, PORT: 9000}
"""


def test_a_compose_file() -> None:
    result = migrated(COMPOSE)
    services = yaml.safe_load(result.text)["services"]
    assert services["other"] == yaml.safe_load(COMPOSE)["services"]["other"]
    assert services["chat"] == {
        "image": "penstock:latest",
        "ports": ["8080:80"],
        "environment": ["HUGGING_FACE_HUB_TOKEN=${HF_TOKEN}"],
        "command": ["--model-id", "a/b", "--max-total-tokens", "4096"],
    }
    # PORT is no variable of vLLM's, but would be read here
    assert services["code"]["command"] == [
        "--model-id", "x/y", "--num-shard", "${TP}", "--port", "8000"
    ]  # fmt: skip
    assert services["code"]["environment"]["API_KEY"] == "k"
    assert any("SPECULATE=3" in str(note) and not note.served for note in result.notes)


MANIFEST = """
apiVersion: v1
kind: Service
spec: {ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
spec:
  template:
    spec:
      containers:
      - name: s
        image: example.org/mine:1
        command: [/bin/sh, -c, "exec python3 -m sglang.launch_server --model-path a/b --tp 4"]
        env:
        - {name: HF_TOKEN, valueFrom: {secretKeyRef: {name: a, key: b}}}
        - {name: SGLANG_X, value: "1"}
"""


def test_a_manifest() -> None:
    result = migrated(MANIFEST)
    service, deployment = yaml.safe_load_all(result.text)
    assert service == next(yaml.safe_load_all(MANIFEST))
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["args"] == ["--model-id", "a/b", "--num-shard", "4", "--port", "30000"]
    assert "command" not in container and container["image"] == "penstock:latest"
    assert [entry["name"] for entry in container["env"]] == ["HF_TOKEN"]
    assert any("example.org/mine:1 is an image of your own" in str(n) for n in result.notes)


def test_a_file_of_variables() -> None:
    result = migrated("export VLLM_API_KEY=k\n# mine\nHF_TOKEN=t\nVLLM_USE_V1=1")
    assert result.text == "export API_KEY=k\n# mine\nHF_TOKEN=t"
    result = migrated("MODEL_ID=a/b\nATTENTION=paged\nLORA_ADAPTERS=x")
    assert result.text == "MODEL_ID=a/b"
    assert [note.served for note in result.notes] == [True, False]


def test_the_bare_word_is_no_image() -> None:
    line = "docker run --name vllm -v ./vllm:/x registry:5000/a/vllm-openai@sha256:0 --model m"
    result = migrated(line)
    assert result.text.startswith("docker run --name vllm -v ./vllm:/x penstock:latest --model-id")
    line = "docker run --env=VLLM_API_KEY --env VLLM_X -e HF_TOKEN vllm/vllm-openai m --port 1"
    start = "docker run --env=API_KEY -e HF_TOKEN penstock:latest --model-id m --port 1"
    assert migrated(line).text == start
    assert migrate_text("cd sglang && pip install vllm==0.9") is None
    assert migrated("sudo docker pull vllm/vllm-openai").text == "sudo docker pull penstock:latest"


@pytest.mark.parametrize("text", ["", "hello", "a: b", "curl http://x | sh", 'it"s', "[1, {a: 2}]"])
def test_what_is_none_of_them(text: str) -> None:
    assert migrate_text(text) is None


def test_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["vllm", "serve", "m", "--port", "1"]) == 0
    out, err = capsys.readouterr()
    assert out == "penstock serve --model-id m --port 1\n" and "NOT SERVED" not in err
    path = tmp_path / "compose.yml"
    path.write_text(COMPOSE)
    assert main([str(path)]) == 1
    out, err = capsys.readouterr()
    assert "penstock:latest" in out and "NOT SERVED: SPECULATE=3" in err
    data = io.TextIOWrapper(io.BytesIO(b"text-generation-launcher --model-id m"))
    monkeypatch.setattr("sys.stdin", data)
    assert main([]) == 0
    assert capsys.readouterr().out == "penstock serve --model-id m\n"
    assert main(["make", "tea"]) == 2
    assert "nothing of TGI, vLLM or SGLang" in capsys.readouterr().err
    path.write_bytes(b"x" * (1 << 20) + b"xx")
    assert main([str(path)]) == 2
    assert main(["--markdown"]) == 0


SEEDS = ROOT.parent / "shared" / "seeds"
PROSE = re.compile(r"vllm serve CLI")
SPECULATION = re.compile(r"--speculative-\S+ \S+")


@pytest.mark.skipif(not SEEDS.is_dir(), reason="the articles are not on this machine")
def test_articles_as_they_are() -> None:
    """Whole articles: every command in them comes out as one that Penstock takes."""
    for number in range(4):
        (path,) = SEEDS.glob(f"{number:03}_*.txt")
        commands = path.read_text().splitlines(keepends=True)
        commands = [line for line in commands if not PROSE.search(line)]
        result = migrated("".join(commands).replace("nf45. ", "nf4 # "))
        lines = [line for line in result.text.splitlines() if line.startswith("penstock serve --")]
        assert lines and "docker run" in result.text or number > 1
        assert "import vllm" in result.text or "import sglang" in result.text
        for line in lines:
            parse(shlex.split(line.partition(" &")[0])[2:], {})
        refused = [str(note) for note in result.notes if not note.served]
        assert not [one for one in refused if not SPECULATION.search(one)]


def test_what_is_an_entry_of_one_object_here() -> None:
    """vLLM has flags of their own for parts of config.json."""
    argv = ["--rope-scaling", '{"factor": 4}', "--rope-theta", "1e6", "--hf-overrides", '{"a": 1}']
    words = translate(VLLM, argv).words()
    overrides = {"rope_scaling": {"factor": 4}, "rope_theta": 1e6, "a": 1}
    assert parse(words, {})[0].hf_overrides == overrides
    wrong = translate(VLLM, ["--rope-scaling", "linear"])
    assert not wrong.texts and not wrong.notes[0].served
    variable = translate(VLLM, ["--rope-theta", "$THETA", "--hf-overrides", '{"a": 1}'])
    assert variable.texts == {"hf_overrides": ['{"rope_theta": $THETA}']}
    assert "cannot be joined to the rest of --hf-overrides" in str(variable.notes[0])
