"""vLLM's command line (0.24)."""

from __future__ import annotations

import re

from penstock_launcher.migration.rows import (
    Limit,
    Row,
    Server,
    image,
    not_served,
    same,
    spelled,
    without_effect,
)
from penstock_launcher.spellings import VLLM

ROWS: tuple[Row, ...] = (
    *spelled(VLLM),
    *same(
        "--port --uds --root-path --api-key --served-model-name --ssl-keyfile --ssl-certfile "
        "--ssl-ca-certs --revision --dtype --kv-cache-dtype --load-format --generation-config "
        "--tool-call-parser --reasoning-parser --hf-overrides --override-generation-config "
        "--default-chat-template-kwargs --nnodes --node-rank --master-addr --master-port",
        {
            "--api-key": "protects every route that generates, not those under /v1 alone",
            "--nnodes": "also needs --hosts-secret-file, and --num-shard counts all hosts' shards",
        },
    ),
    Row(("--cudagraph-capture-sizes",), "cuda_graphs", many=True),
    Row(("--rope-scaling",), "hf_overrides", value='{{"rope_scaling": {}}}'.format),
    Row(("--rope-theta",), "hf_overrides", value='{{"rope_theta": {}}}'.format),
    Row(("--device",), "device", neutral=("auto", "cuda")),
    *without_effect(
        "is left out: Penstock does so anyway",
        "--enable-chunked-prefill --enable-auto-tool-choice --enable-prompt-tokens-details "
        "--enable-request-id-headers --enable-ssl-refresh --async-scheduling "
        "--use-tqdm-on-load --enable-reasoning --enable-server-load-tracking --enable-offline-docs",
    ),
    *without_effect(
        "is left out: it tunes vLLM's own engine",
        "--attention-backend= --linear-backend= --moe-backend= --all2all-backend= "
        "--compilation-config|-O= --optimization-level= --performance-mode= "
        "--max-cudagraph-capture-size= --max-seq-len-to-capture= --num-scheduler-steps= "
        "--long-prefill-token-threshold= --max-num-partial-prefills= "
        "--max-long-partial-prefills= --stream-interval= --prefix-caching-hash-algo= "
        "--distributed-executor-backend= --disable-custom-all-reduce --numa-bind "
        "--safetensors-load-strategy= --model-loader-extra-config= --ignore-patterns= "
        "--max-parallel-loading-workers= --worker-cls= --scheduler-cls= --use-v2-block-manager "
        "--disable-async-output-proc --disable-frontend-multiprocessing --worker-use-ray "
        "--engine-use-ray --tokenizer-pool-size= --tokenizer-pool-type= --num-lookahead-slots= "
        "--max-context-len-to-capture= --disable-cascade-attn "
        "--enable-flashinfer-autotune --api-server-count|-asc= "
        "--preemption-mode= --mm-processor-cache-gb= --no-async-scheduling --watermark= "
        "--scheduler-reserve-full-isl --prefill-schedule-interval= --use-fp64-gumbel "
        "--profiler-config= --h11-max-incomplete-event-size= --h11-max-header-count=",
    ),
    *without_effect(
        "is left out: it changes logs alone; --log-level is Penstock's",
        "--disable-log-requests --disable-log-stats --enable-log-requests --enable-log-outputs "
        "--max-log-len= --uvicorn-log-level= --disable-uvicorn-access-log --log-config-file= "
        "--disable-access-log-for-endpoints= --kv-cache-metrics --cudagraph-metrics "
        "--enable-mfu-metrics --enable-logging-iteration-details --enable-log-deltas",
    ),
    *without_effect(
        "is left out: the KV cache stays in the GPU; a sequence that finds no room waits",
        "--swap-space=",
    ),
    *without_effect("is left out: no code of a model is loaded", "--code-revision="),
    *without_effect(
        "is left out: llguidance holds every answer to its grammar",
        "--guided-decoding-backend= --structured-outputs-config=",
    ),
    *without_effect("is left out: a request carries its own seed", "--seed="),
    *not_served(
        "cannot be granted: nothing in a model folder is ever executed", "--trust-remote-code"
    ),
    *not_served("is not built yet: one token a step",
        "--speculative-config|-sc= --spec-method= --spec-model= --spec-tokens= "
        "--speculative-model= --num-speculative-tokens="),
    *not_served("is not built yet: adapters cannot be loaded, but merged (docs/adapters.md)",
        "--enable-lora --lora-modules=* --max-loras= --max-lora-rank= --max-cpu-loras="),
    *not_served("is not built yet: --num-shard splits a model over GPUs",
        "--pipeline-parallel-size|-pp= --decode-context-parallel-size|-dcp=", "1"),
    *not_served("is not built yet: start a server for each, behind a balancer (docs/scale.md)",
        "--data-parallel-size|-dp=", "1"),
    *not_served("is not built yet", "--enable-expert-parallel|-ep --enable-eplb "
        "--enable-sleep-mode --kv-transfer-config= --kv-events-config= --headless"),
    *not_served("is not built yet: weights and KV cache lie in the GPUs' memory",
        "--cpu-offload-gb= --kv-offloading-size= --kv-offloading-backend=", "0"),
    *not_served("is not supported: --kv-cache-memory bounds the KV cache in bytes, and "
        "--max-batch-total-tokens in tokens", "--num-gpu-blocks-override="),
    *not_served("is not supported: a template reads what messages are from the model itself",
        "--chat-template-content-format=", "auto"),
    *not_served("is not supported: the model's own tokenizer is read",
        "--tokenizer= --tokenizer-revision= --tokenizer-mode= --skip-tokenizer-init",
        "auto", "hf", "fast"),
    *not_served("is not supported: config.json of the model's folder says what it is",
        "--hf-config-path="),
    *not_served("is not supported: config.json is read", "--config-format=", "auto", "hf"),
    *not_served("is not supported: the checkpoint says how it is quantised",
        "--quantization-config=", "{}"),
    *not_served("is not supported: this server generates text",
        "--runner= --task= --convert=", "auto", "generate", "none"),
    *not_served("is not supported: this server generates text", "--pooler-config=", "{}"),
    *not_served("is not supported: there is one implementation of each model",
        "--model-impl=", "auto", "vllm"),
    *not_served("is not supported: log-probabilities are the model's own (raw_logprobs)",
        "--logprobs-mode=", "raw_logprobs"),
    *not_served("is not supported: no foreign code runs in the server",
        "--middleware= --logits-processors= --tool-parser-plugin= --reasoning-parser-plugin="),
    *without_effect(
        "is left out: requests may have a priority in any case, and larger is sooner",
        "--scheduling-policy=",
    ),
    *not_served("is written otherwise: give each origin as --cors-allow-origin ORIGIN",
        "--allowed-origins=", '["*"]', "*"),
    *not_served("is not supported: CORS has no such setting here",
        "--allowed-methods= --allowed-headers= --allow-credentials", '["*"]', "*"),
    *not_served("is not built yet: pictures are refused", "--limit-mm-per-prompt=", "{}"),
    *not_served("is not built yet: pictures are refused",
        "--allowed-local-media-path= --allowed-media-domains=*"),
    *not_served("is left to you: Penstock reads such a file too, if the launcher takes "
        "the names in it", "--config="),
    *not_served("is not supported: a template comes from the model or the operator alone",
        "--trust-request-chat-template"),
    *not_served("is not supported: requests say it, by stream_options",
        "--enable-force-include-usage"),
    *not_served("is not supported: /docs is public, and holds nothing of the server",
        "--disable-fastapi-docs"),
    *not_served("is not supported: answers have the role `assistant`", "--response-role=",
        "assistant"),
    *not_served("is not supported", "--enable-prompt-embeds --tokens-only --fingerprint-mode= "
        "--exclude-tools-when-tool-choice-none --ssl-ciphers= --tool-server= "
        "--enable-tokenizer-info-endpoint --return-tokens-as-token-ids --grpc"),
)  # fmt: skip

SERVER = Server(
    name=VLLM,
    image=image("vllm(?:-openai)?"),
    programs=(
        re.compile(r"(?:\S*/)?vllm serve"),
        re.compile(r"(?:\S*/)?python[\d.]* -m vllm\.entrypoints(?:\.openai)?\.api_server"),
    ),
    rows=ROWS,
    added={"port": "8000"},
    defaults={
        "cuda_memory_fraction": Limit(
            "0.92",
            "1: all of a GPU",
            "0.92",
            "is 1 here and was 0.92: memory that other programs need must be left to them",
        ),
        "max_concurrent_requests": Limit(
            "any number waits",
            "128; further ones get 429 at once",
            "1000000",
            "is 128: further requests get 429 at once, where vLLM lets any number wait",
        ),
        "max_stop_sequences": Limit(
            "no bound",
            "16 under /v1",
            "256",
            "is 16 under /v1, where vLLM has no bound",
        ),
        "payload_limit": Limit(
            "no bound",
            "2 MB a request; larger ones get 413",
            "2000000000",
            "is 2 MB a request; larger ones get 413",
        ),
        "graceful_termination_timeout": Limit(
            "0: running requests are cut",
            "90 s, in which they end after SIGTERM",
            "0",
            "is 90 s, in which running requests end after SIGTERM; vLLM's is 0",
        ),
        "metric_names": Limit(
            "vLLM's",
            "TGI's",
            "vllm",
            "is tgi: give vllm to keep dashboards that show vLLM's metrics",
        ),
        "max_batch_prefill_tokens": Limit(
            "8192 from 70 GiB on, else 2048 (not A100)", "4096; on a CPU 1024", "8192"
        ),
        "max_batch_size": Limit(
            "1024 from 70 GiB on, else 256",
            "max-concurrent-requests, at most 256; on a CPU 64",
            "1024",
        ),
        "max_connections_per_client": Limit("no bound", "1024", "1000000"),
        "kv_block_size": Limit("16", "64; on a CPU 16", "16"),
        "http_processes": Limit("one process", "beside GPUs one for each 5 cores, 2 to 4", "0"),
    },
    variables={"VLLM_API_KEY": "API_KEY", "VLLM_BATCH_INVARIANT": "DETERMINISTIC"},
    without_meaning=re.compile(r"VLLM_\w+"),
    cache="/root/.cache/huggingface",
)
