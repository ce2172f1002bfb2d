"""The pages for those who come from TGI, vLLM and SGLang say what the server does."""

from __future__ import annotations

import re
from pathlib import Path

import foreign_fields
import pytest
from readme_options import pages

from penstock_launcher.command_line import parse
from penstock_launcher.migration.__main__ import main
from penstock_launcher.migration.commands import SERVERS
from penstock_launcher.migration.rows import OPTION, Server
from penstock_router.api.routes import ROUTES

ROOT = Path(__file__).parents[2]
OUR_FLAGS = {option.flag for option in OPTION.values()}
FEWEST = 70  # rows of each table of fields and flags together
# What their users type: the launcher's reference of TGI 3.3, `vllm serve --help`, SGLang's page of
# server arguments and the launch lines of its cookbook.
USED = {
    "TGI": "model-id revision validation-workers sharded num-shard quantize speculate dtype "
    "kv-cache-dtype trust-remote-code max-concurrent-requests max-best-of max-stop-sequences "
    "max-top-n-tokens max-input-tokens max-input-length max-total-tokens waiting-served-ratio "
    "max-batch-prefill-tokens max-batch-total-tokens max-waiting-tokens max-batch-size cuda-graphs "
    "hostname port prometheus-port shard-uds-path master-addr master-port huggingface-hub-cache "
    "weights-cache-override disable-custom-kernels cuda-memory-fraction rope-scaling rope-factor "
    "json-output otlp-endpoint otlp-service-name cors-allow-origin api-key watermark-gamma "
    "watermark-delta ngrok ngrok-authtoken ngrok-edge tokenizer-config-path "
    "disable-grammar-support env max-client-batch-size lora-adapters usage-stats payload-limit "
    "enable-prefill-logprobs graceful-termination-timeout",
    "vLLM": "host port uds api-key root-path ssl-keyfile ssl-certfile served-model-name model "
    "tokenizer tokenizer-mode trust-remote-code revision dtype max-model-len seed quantization "
    "hf-overrides generation-config override-generation-config max-logprobs enforce-eager runner "
    "task load-format download-dir gpu-memory-utilization kv-cache-memory-bytes "
    "num-gpu-blocks-override block-size kv-cache-dtype enable-prefix-caching "
    "no-enable-prefix-caching cpu-offload-gb swap-space max-num-batched-tokens max-num-seqs "
    "enable-chunked-prefill scheduling-policy async-scheduling stream-interval "
    "compilation-config cudagraph-capture-sizes attention-backend tensor-parallel-size "
    "pipeline-parallel-size data-parallel-size enable-expert-parallel nnodes node-rank "
    "distributed-executor-backend disable-custom-all-reduce speculative-config enable-lora "
    "lora-modules max-loras max-lora-rank structured-outputs-config guided-decoding-backend "
    "limit-mm-per-prompt chat-template chat-template-content-format enable-auto-tool-choice "
    "tool-call-parser tool-parser-plugin reasoning-parser disable-log-requests disable-log-stats "
    "enable-log-requests uvicorn-log-level allowed-origins middleware otlp-traces-endpoint "
    "kv-transfer-config config api-server-count enable-sleep-mode logits-processors "
    "shutdown-timeout code-revision enable-prompt-tokens-details",
    "SGLang": "model-path model tokenizer-path tokenizer-mode skip-tokenizer-init load-format "
    "trust-remote-code context-length is-embedding revision host port dtype quantization "
    "kv-cache-dtype mem-fraction-static max-running-requests max-queued-requests max-total-tokens "
    "chunked-prefill-size max-prefill-tokens schedule-policy enable-priority-scheduling "
    "schedule-conservativeness page-size device tensor-parallel-size tp tp-size "
    "pipeline-parallel-size stream-interval random-seed watchdog-timeout download-dir base-gpu-id "
    "log-level log-level-http log-requests enable-metrics api-key served-model-name chat-template "
    "enable-cache-report reasoning-parser tool-call-parser sampling-defaults data-parallel-size dp "
    "dp-size load-balance-method dist-init-addr nnodes node-rank json-model-override-args "
    "enable-lora lora-paths max-loras-per-batch lora-backend attention-backend sampling-backend "
    "grammar-backend speculative-algorithm speculative-draft-model-path speculative-num-steps "
    "speculative-eagle-topk speculative-num-draft-tokens ep-size moe-runner-backend "
    "enable-hierarchical-cache hicache-ratio cpu-offload-gb disable-radix-cache cuda-graph-max-bs "
    "cuda-graph-bs disable-cuda-graph enable-p2p-check enable-torch-compile enable-dp-attention "
    "enable-mixed-chunk disaggregation-mode disable-overlap-schedule enable-custom-logit-processor "
    "skip-server-warmup enable-multimodal enable-deterministic-inference config",
}


def name(server: Server) -> str:
    return server.name


each_server = pytest.mark.parametrize("server", SERVERS, ids=name)


def rows(server: Server, table: str) -> list[list[str]]:
    """Of the table of that name in the server's page, without its heads."""
    page = (ROOT / "docs" / "from" / f"{server.name.lower()}.md").read_text()
    text = page.split(f"<!-- {table}: ")[1].split(f"<!-- end of {table}")[0]
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def spans(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_the_pages_are_those_that_the_tables_make() -> None:
    for path, text in pages().items():
        assert path.read_text() == text, f"{path.name}: run `make readme`"


@each_server
def test_every_flag_that_people_use_is_listed(server: Server) -> None:
    listed = {flag for cells in rows(server, "flags") for flag in spans(cells[0])}
    assert listed >= {f"--{flag}" for flag in USED[server.name].split()}


@each_server
def test_every_flag_is_one_of_ours_or_says_why_not(server: Server) -> None:
    table = rows(server, "flags")
    flags = [flag for cells in table for flag in spans(cells[0])]
    assert flags == [flag for row in server.rows for flag in row.flags]
    for _, here, differs in table:
        if here in ("nothing", "not served"):
            assert re.match(r"(is|are|has|cannot) ", differs), differs
        elif here != "the default":
            assert here.strip("`").split()[0] in OUR_FLAGS


@each_server
def test_every_limit_can_be_restored(server: Server) -> None:
    table = rows(server, "limits")
    assert len(table) == len(server.added) + len(server.defaults) >= 5
    for option, _, here, restored in table:
        (flag,), (command, *_) = spans(option), spans(restored)
        field = flag.removeprefix("--").replace("-", "_")
        assert command.startswith(f"{flag} ")
        default = getattr(parse([], {})[0], field)
        assert getattr(parse(command.split(), {})[0], field) != default
        if isinstance(default, int | float) and (number := re.match(r"[\d.]+", here)):
            scale = 1e6 if here.startswith(f"{number[0]} MB") else 1
            least = {"max_stop_sequences": 4}.get(field)  # /v1 takes 16 in any case
            assert default == (least or float(number[0].rstrip(".")) * scale), here


@each_server
def test_every_field_stands_there_with_what_becomes_of_it(server: Server) -> None:
    table = rows(server, "fields")
    known = foreign_fields.FIELDS[server.name]
    expected = [(one.treatment(field), field) for one in known for field in one.names]
    assert [(here, spans(cell)[0]) for cell, here, _ in table] == expected
    assert len(table) + len(rows(server, "flags")) >= FEWEST
    for here, field in expected:
        assert here != "ignored, and named in `x-ignored-fields`" or any(
            one.notes.get(field) for one in known
        ), f"{field} is ignored without a word why"


@each_server
def test_routes_that_are_the_same_are_there(server: Server) -> None:
    page = (ROOT / "docs" / "from" / f"{server.name.lower()}.md").read_text()
    same = page.split("## What is the same")[1].split("\n## ")[0]
    named = {span for span in spans(same) if re.fullmatch(r"/[\w/]+", span)} - {"/data"}
    there = {route.path for route in ROUTES}
    assert named and named <= there


def test_migrate_prints_the_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--markdown"]) == 0
    said = capsys.readouterr().out
    assert all(f"## {server.name}\n" in said for server in SERVERS)
    assert said.count("\n| `--") > 250
