"""Every option, defined once: parsing, environment, help, defaults and the README table read this.

Names, environment variables (the same name in UPPER_SNAKE, plain or behind `TGI_`), defaults and
meanings are those of Text Generation Inference (TGI), so that its users keep their manifests.

`python -m penstock_launcher.options --markdown` prints the README table.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from penstock_launcher.kinds import (
    Kind,
    address,
    boolean,
    integer,
    many,
    network,
    number,
    one_of,
    path,
    route,
    sizes,
    switch,
    text,
)
from penstock_launcher.spellings import SPELLINGS, Spelling
from penstock_launcher.unsupported import UNSUPPORTED

PREFIX = "TGI_"
TOKENS = integer(1, 100_000_000)
COUNT = integer(1, 1_000_000)


@dataclass(frozen=True, slots=True)
class Option:
    """One option as a user meets it."""

    name: str  # the field of Options
    kind: Kind
    help: str
    default: Any
    default_text: str  # what --help and the README show
    short: str | None
    secret: bool  # never printed
    in_environment: bool
    env_fallback: str | None  # used when the environment's value is invalid, instead of an error
    also: tuple[str, ...]  # further variables that say the same
    overrides: tuple[str, ...]  # variables of hosting platforms, which beat all others

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def spellings(self) -> tuple[Spelling, ...]:
        """What vLLM and SGLang call it."""
        return tuple(spelling for spelling in SPELLINGS if spelling.option == self.name)

    @property
    def variable(self) -> str | None:
        return self.name.upper() if self.in_environment else None

    @property
    def variables(self) -> tuple[str, ...]:
        """Where the environment may give it; the first that does is the one that is named."""
        if self.variable is None:
            return ()
        return (self.variable, f"{PREFIX}{self.variable}", *self.also)


def _option(
    default: Any,
    kind: Kind,
    help: str,
    *,
    default_text: str = "",
    short: str | None = None,
    secret: bool = False,
    in_environment: bool = True,
    env_fallback: str | None = None,
    also: tuple[str, ...] = (),
    overrides: tuple[str, ...] = (),
) -> Any:
    metadata = {
        "kind": kind,
        "help": help,
        "default_text": default_text,
        "short": short,
        "secret": secret,
        "in_environment": in_environment,
        "env_fallback": env_fallback,
        "also": also,
        "overrides": overrides,
    }
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the operator asked for. None: derived later, or off."""

    # The model
    model_id: str | None = _option(
        None,
        text(),
        "Hub id such as `mistralai/Mistral-7B-v0.1`, `s3://BUCKET/PREFIX`, or a folder with "
        "config.json, safetensors and tokenizer files",
        default_text="the built-in demo model",
        also=("HF_MODEL_ID",),
    )
    revision: str | None = _option(
        None,
        text(),
        "Commit, branch or tag of the model on the hub",
        default_text="main",
        also=("HF_MODEL_REVISION",),
    )
    served_model_name: tuple[str, ...] = _option(
        (),
        many(text()),
        "Name of the model in the HTTP API; repeatable, answers show the first. Requests for other "
        "names are then answered with 404, but for model-id, `tgi`, `dummy`, `default` and URLs, "
        "which clients send that were given no name",
        default_text="model-id, and any name is accepted",
    )
    tokenizer_config_path: str | None = _option(
        None,
        path(),
        "A tokenizer_config.json (chat template) to use instead of the model's own",
    )
    tool_call_parser: str = _option(
        "auto",
        text(),
        "How the model writes tool calls: a name of docs/tools.md, among them vLLM's and SGLang's; "
        "none: as models that know no tools; auto: as the checkpoint or its chat template shows",
    )
    reasoning_parser: str = _option(
        "auto",
        text(),
        "How the model marks its reasoning: a name of docs/tools.md; none: all of it is text; "
        "auto: as the checkpoint or its chat template shows",
    )
    load_format: str = _option(
        "auto",
        one_of("auto", "dummy", names={"safetensors": "auto"}),
        "auto: the weights of the model; dummy: random weights, from config.json alone",
    )
    huggingface_hub_cache: str | None = _option(
        None,
        path(),
        "Folder of the hub cache, for instance on a mounted disk",
        default_text="huggingface_hub's own",
    )
    weights_cache_override: str | None = _option(
        None,
        path(),
        "Folder whose safetensors are served instead of those in the hub cache or model folder",
    )

    # The shards
    sharded: bool | None = _option(
        None, boolean(), "true: over all visible GPUs; false: one shard unless num-shard says more"
    )
    num_shard: int | None = _option(
        None,
        integer(1, 64),
        "Tensor-parallel shards, one process and on a GPU machine one GPU each",
        default_text="the GPUs in CUDA_VISIBLE_DEVICES, else NVIDIA_VISIBLE_DEVICES, else all; "
        "1 on a CPU",
        also=("SM_NUM_GPUS",),
    )
    device: str | None = _option(
        None, one_of("cpu", "cuda"), "Where the shards run", default_text="cuda if there is one"
    )
    dtype: str | None = _option(
        None,
        one_of(
            "float16",
            "bfloat16",
            "float32",
            names={"auto": None, "half": "float16", "float": "float32"},
        ),
        "Type of weights, and of the KV cache unless kv-cache-dtype says otherwise",
        default_text="the checkpoint's",
    )
    quantize: str | None = _option(
        None,
        one_of(
            "fp8",
            "bitsandbytes",
            "bitsandbytes-nf4",
            "bitsandbytes-fp4",
            "eetq",
            "awq",
            "compressed-tensors",
            "exl2",
            "gptq",
            "marlin",
            "modelopt",
            "mxfp4",
            "squeezellm",
            "torchao",
        ),  # fmt: skip
        "Quantise half-precision weights while they are loaded. fp8: e4m3, a scale for each output "
        "of a matrix; bitsandbytes, eetq: whole numbers of 8 bits, a scale for each output; "
        "bitsandbytes-nf4, -fp4: 4 bits, a scale for each 64 numbers. The other names "
        "say what a checkpoint is, and are an error beside one that is something else",
        default_text="the checkpoint's own format",
        also=("HF_MODEL_QUANTIZE",),
    )
    kv_cache_dtype: str = _option(
        "auto",
        one_of("auto", "fp8_e4m3fn", "fp8_e5m2", "fp8", "fp8_e4m3"),
        "Type of the KV cache. FP8 holds twice as many tokens, with the scales of the checkpoint "
        "where it has any. fp8 and fp8_e4m3 are fp8_e4m3fn. auto: the type of the weights, or what "
        "the checkpoint's quantization_config says",
    )
    cuda_memory_fraction: float = _option(
        1.0, number(0, 1, above=True), "Share of each GPU's memory that a shard may take"
    )
    kv_cache_memory: int | None = _option(
        None,
        integer(1, 10**15),
        "Bytes of each shard's KV cache, in place of what is left; an error where they are not "
        "free. Excludes --max-batch-total-tokens",
        default_text="what is left",
    )
    leave_free: int | None = _option(
        None,
        integer(0, 10**15),
        "Bytes that stay free on each GPU, whatever --cuda-memory-fraction says; on a CPU of the "
        "host's memory, of which the KV cache may then take all the rest",
        default_text="0; on a CPU three quarters",
    )
    cuda_graphs: tuple[int, ...] | None = _option(
        None,
        sizes(4096),
        "Batch sizes whose decode step is captured as a CUDA graph; larger ones run without. Steps "
        "with prompts, and draws of tokens, are captured as well. 0: no graphs at all",
        default_text="some 20 sizes up to max-batch-size",
    )
    disable_dependent_launch: bool = _option(
        False,
        switch(),
        "Start each kernel of a step only when the one before it has ended. Slower; for finding "
        "faults. Results are the same",
    )
    kv_block_size: int | None = _option(
        None,
        integer(1, 1024),
        "Tokens in a block of the KV cache",
        default_text="64 on CUDA, 16 on a CPU",
    )
    disable_prefix_cache: bool = _option(
        False, switch(), "Compute every prompt anew instead of reusing the KV of equal prefixes"
    )
    disable_shared_reads: bool = _option(
        False,
        switch(),
        "Let attention read the KV of a shared prefix once for each sequence of a batch, not once "
        "for a few of them",
    )
    disable_grammar_support: bool = _option(
        False,
        switch(),
        "Refuse requests that hold the answer to a grammar; calls of tools are as the model writes "
        "them",
    )
    step_timeout: float = _option(
        60.0,
        number(0.1, 86_400),
        "Seconds that one step of the shards may take before they are taken for dead",
    )
    shard_uds_path: str = _option(
        "/tmp/text-generation-server",
        path(),
        "Prefix of the folder with the shards' sockets; process id and a random part are added, "
        "so that launchers never collide",
    )
    master_addr: str | None = _option(
        None,
        text(),
        "Address where the shards meet; with master-port alone 127.0.0.1",
        default_text="none: they meet through a file",
        also=("LWS_LEADER_ADDRESS",),
    )
    master_port: int | None = _option(
        None,
        integer(1, 65_535),
        "Port where the shards meet; with master-addr alone 29500",
        default_text="none: they meet through a file",
    )

    nnodes: int = _option(
        1,
        integer(1, 64),
        "Hosts that serve one model together; each runs a launcher with the same options but for "
        "node-rank. num-shard is then the number of all their shards",
        also=("LWS_GROUP_SIZE",),
    )
    node_rank: int = _option(
        0,
        integer(0, 63),
        "Which of these hosts this is; 0 has the router and serves HTTP",
        also=("LWS_WORKER_INDEX",),
    )
    hosts_secret_file: str | None = _option(
        None,
        path(),
        "File with a secret of all these hosts (16 characters and more), from which each makes a "
        "certificate; what they say to each other goes by TLS, but for NCCL's and gloo's",
    )
    hosts_certs: str | None = _option(
        None,
        path(),
        "Folder with ca.pem, host.pem and host.key to use instead; host.pem is for the name "
        "penstock-host-<node-rank>",
    )

    # Limits of one request
    max_input_tokens: int | None = _option(
        None,
        TOKENS,
        "Longest prompt in tokens; a longer one is refused with 422",
        default_text="max-total-tokens - 1",
    )
    max_input_length: int | None = _option(
        None, TOKENS, "Older name of max-input-tokens; giving both is an error"
    )
    max_total_tokens: int | None = _option(
        None,
        TOKENS,
        "Most tokens of prompt and answer together; more is refused with 422",
        default_text="the model's context, if the KV cache holds it",
    )
    max_best_of: int = _option(2, COUNT, "Largest `best_of` of a request; `n` may be 128")
    max_stop_sequences: int = _option(
        4, COUNT, "Most stop sequences of a request; under /v1 16 in any case"
    )
    max_top_n_tokens: int = _option(
        5, integer(0, 1000), "Largest `top_n_tokens` of a request; `top_logprobs` may be 20"
    )
    max_client_batch_size: int = _option(
        4, COUNT, "Most instances in one call of /vertex; prompts of /v1/completions may be 128"
    )
    strict_requests: bool = _option(
        False,
        switch(),
        "Refuse requests with unknown fields (422) instead of ignoring these and naming them in "
        "the header x-ignored-fields",
    )
    generation_config: str = _option(
        "auto",
        one_of("auto", "none", names={"vllm": "none"}),
        "auto: where a request of /v1 gives no temperature, top_k, top_p, typical_p, min_p or "
        "repetition_penalty, the model's generation_config.json does. none: OpenAI's defaults. "
        "TGI's routes have TGI's in any case",
    )
    watermark_gamma: float = _option(
        0.5,
        number(0, 1, above=True),
        "Share of the vocabulary that is green behind each token, for requests with `watermark`",
    )
    watermark_delta: float = _option(
        2.0,
        number(0, 100, above=True),
        "What such a request has added to the logits of green tokens",
    )
    payload_limit: int = _option(
        2_000_000, integer(1, 2_000_000_000), "Largest request body in bytes; beyond: 413"
    )

    # Batching
    max_concurrent_requests: int = _option(
        128,
        COUNT,
        "Sequences accepted at a time: one a prompt, times `n` or `best_of`; beyond: 429 at once",
    )
    max_batch_prefill_tokens: int | None = _option(
        None,
        TOKENS,
        "Most prompt tokens computed in one step",
        default_text="4096 on CUDA, 1024 on a CPU",
    )
    step_rows: tuple[int, ...] | None = _option(
        None,
        sizes(100_000),
        "Rows that steps with prompts have, decoding sequences included: the least that holds what "
        "a step should compute. The first is what prompts get beside a running batch without "
        "waiting for their turn. 0: those of which a row costs least, measured at start on CUDA; "
        "plans may differ from start to start then",
        default_text="384,1152,2048",
    )
    max_batch_total_tokens: int | None = _option(
        None,
        TOKENS,
        "Most tokens in the KV cache at a time",
        default_text="what memory holds, measured at start",
    )
    max_batch_size: int | None = _option(
        None,
        COUNT,
        "Most sequences in a step",
        default_text="max-concurrent-requests, at most 256 on CUDA, 512 with offline-socket, 64 "
        "on a CPU",
    )
    waiting_served_ratio: float = _option(
        0.3,
        number(0, 1_000_000),
        "Prompts are served before running requests go on once waiting / running exceeds this",
    )
    max_waiting_tokens: int = _option(
        20, integer(0, 1_000_000), "Decode steps after which waiting requests are served anyway"
    )

    # HTTP
    hostname: str = _option(
        "0.0.0.0",
        address(),
        "Address to listen on; `::` is all of IPv6 and IPv4. Docker sets HOSTNAME to the "
        "container's id: a value in the environment that is not an IP address means 0.0.0.0",
        env_fallback="0.0.0.0",
    )
    port: int = _option(
        3000,
        integer(0, 65_535),
        "Port to listen on; 0: a free one",
        short="-p",
        overrides=("AIP_HTTP_PORT", "SAGEMAKER_BIND_TO_PORT"),
    )
    uds: str | None = _option(
        None,
        path(),
        "Unix socket to listen at instead of hostname and port; its user and group may connect",
        default_text="hostname and port",
    )
    root_path: str = _option(
        "",
        route(),
        "Prefix behind which a proxy shows the server, such as /llm; requests may come with it or "
        "without",
        default_text="none",
    )
    ssl_certfile: str | None = _option(
        None,
        path(),
        "Certificate (PEM, with those that lead to its authority) for HTTPS. It, the key and the "
        "authorities are read again when their files change",
        default_text="HTTP",
    )
    ssl_keyfile: str | None = _option(
        None, path(), "Its key (PEM, not encrypted)", default_text="in ssl-certfile"
    )
    ssl_ca_certs: str | None = _option(
        None,
        path(),
        "Authorities (PEM) by one of which clients' certificates must be signed",
        default_text="clients need no certificate",
    )
    predict_route: str | None = _option(
        None,
        route(),
        "A further path for what /vertex does; a path that exists keeps its meaning",
        also=("AIP_PREDICT_ROUTE",),
    )
    health_route: str | None = _option(
        None, route(), "A further path for what /health says", also=("AIP_HEALTH_ROUTE",)
    )
    prometheus_port: int | None = _option(
        None,
        integer(1, 65_535),
        "Second port for /metrics, which the main port serves in any case (TGI documents 9000, "
        "but never listened there)",
        default_text="no second port",
    )
    metric_names: tuple[str, ...] = _option(
        (),
        many(one_of("tgi", "vllm", "sglang")),
        "Whose names /metrics shows beside Penstock's own and TGI's, which it shows in any case; "
        "repeatable",
        default_text="tgi",
    )
    api_key: tuple[str, ...] = _option(
        (),
        many(text(), separator=None),
        "Clients must send `Authorization: Bearer <key>`; repeatable, in the environment one. "
        "Requests of different keys share no cached prefixes. Other users of the machine see a "
        "command line, so better give it as API_KEY, or api-key-file",
        default_text="everybody may call",
        secret=True,
    )
    api_key_file: str | None = _option(
        None,
        path(),
        "File with further such keys, one a line; read at the start, and again on SIGHUP, which "
        "else ends the server",
    )
    cors_allow_origin: tuple[str, ...] = _option(
        (), many(text()), "Origin that browsers may call from; repeatable", default_text="any"
    )
    max_connections_per_client: int = _option(
        1024,
        COUNT,
        "Connections of one client (IP address; of IPv6 the first 64 bits) at a time, if there are "
        "descriptors for as many; one more closes the oldest idle one, or is answered with 429",
    )
    max_requests_per_client: int = _option(
        0,
        integer(0, 1_000_000),
        "Requests that generate, of one client, at a time; beyond: 429 at once. 0: only "
        "max-concurrent-requests counts",
    )
    trusted_proxies: tuple[str, ...] = _option(
        (),
        many(network()),
        "Proxies (IP address or network) whose connections are not counted, and whose "
        "X-Forwarded-For says who the client is; repeatable",
        default_text="none: the address of the connection is the client",
    )
    http_processes: int | None = _option(
        None,
        integer(0, 64),
        "Processes that serve HTTP and text in front of the one that schedules; 0: that one does",
        default_text="0 on a CPU; beside GPUs one for each 5 CPU cores, 2 to 4, else 0",
    )
    stream_keepalive: float = _option(
        15.0,
        number(0, 3600),
        "Seconds of silence after which a stream sends its head, or a comment that clients pass "
        "over: proxies cut connections that are silent for 30 or 60 s. 0: never",
    )
    max_request_time: float | None = _option(
        None,
        number(0, 1_000_000, above=True),
        "Seconds that a request may take, the queue included; then it ends with an error (504). A "
        "client may ask for less, by the field `timeout` or the header x-request-timeout",
        default_text="any",
    )
    validation_workers: int = _option(
        2,
        integer(1, 256),
        "Threads that tokenise and validate requests, in each process that serves HTTP",
    )
    graceful_termination_timeout: float = _option(
        90.0,
        number(0, 86_400),
        "Seconds that running requests get to finish after SIGTERM",
        short="-g",
    )

    offline_socket: bool = _option(
        False,
        switch(),
        "Also take batches of `penstock.LLM` at a Unix socket in the folder of shard-uds-path. "
        "Needs http-processes 0, which is its default then",
    )

    # The launcher
    otlp_endpoint: str | None = _option(
        None,
        text(),
        "Collector that gets a trace of each request by OTLP, for instance http://127.0.0.1:4317. "
        "Needs the extra `otlp`",
        default_text="no traces",
    )
    otlp_protocol: str | None = _option(
        None,
        one_of("grpc", "http/protobuf", "http/json", names={"http": "http/protobuf"}),
        "How otlp-endpoint is spoken to. http/json is refused",
        default_text="http/protobuf for port 4318 or an endpoint with a path, else grpc",
        also=("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"),
    )
    otlp_service_name: str = _option(
        "text-generation-inference.router", text(), "What traces call this server"
    )
    batch_folder: str | None = _option(
        None,
        path(),
        "Folder for /v1/files and /v1/batches, made if need be and for this user alone; without it "
        "those routes are 404",
    )
    batch_storage_limit: int = _option(
        10_000_000_000,
        integer(1_000_000, 10**15),
        "Bytes that the files of all clients may take in batch-folder",
    )
    json_output: bool = _option(False, switch(), "Write log lines as JSON")
    log_level: str = _option(
        "info",
        one_of("trace", "debug", "info", "warn", "error", "off", any_case=True),
        "Least level of the log lines that are written",
        env_fallback="info",  # TGI also takes filters such as text_generation_router=debug
    )
    env: bool = _option(
        False,
        switch(),
        "Print versions, platform and GPUs for a bug report, then go on",
        short="-e",
        in_environment=False,
    )


def _shown(default: Any) -> str:
    if default in (None, (), False):
        return ""
    return f"{default:g}" if isinstance(default, float) else str(default)


def _table() -> Iterator[Option]:
    for field in dataclasses.fields(Options):
        values = dict(field.metadata)
        values["default_text"] = values["default_text"] or _shown(field.default)
        yield Option(name=field.name, default=field.default, **values)


OPTIONS: tuple[Option, ...] = tuple(_table())


def markdown() -> str:
    """The README's tables of options."""
    lines = ["| option | environment | default | meaning |", "|---|---|---|---|"]
    for option in OPTIONS:
        value = f" {option.kind.metavar}" if option.kind.takes_value else ""
        others = [flag for spelling in option.spellings for flag in spelling.flags]
        short = [option.short] if option.short else []
        flag = ", ".join(f"`{name}`" for name in (f"{option.flag}{value}", *short, *others))
        names = filter(None, (*option.overrides, option.variable, *option.also))
        variable = ", ".join(f"`{name}`" for name in names) or "-"
        row = (flag, variable, option.default_text or "-", option.help)
        lines.append("| " + " | ".join(row) + " |")
    lines += [
        "",
        "Options of TGI's that are refused, or accepted because they change nothing:",
        "",
        "| option | environment | accepted | why |",
        "|---|---|---|---|",
    ]
    for refused in UNSUPPORTED:
        variable = f"`{refused.variable}`" if refused.variable else "-"
        accepted = ", ".join(f"`{value}`" for value in refused.harmless) or "-"
        lines.append(f"| `{refused.flag}` | {variable} | {accepted} | {refused.reason} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if sys.argv[1:] != ["--markdown"]:
        sys.exit("usage: python -m penstock_launcher.options --markdown")
    print(markdown(), end="")
