"""vLLM's command line (0.24)."""

from __future__ import annotations

import re

from penstock_launcher.migration.rows import (
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
        "--tool-call-parser --reasoning-parser --nnodes --node-rank --master-addr --master-port",
        {
            "--api-key": "protects every route that generates, not those under /v1 alone",
            "--nnodes": "also needs --hosts-secret-file, and --num-shard counts all hosts' shards",
        },
    ),
    Row(("--cudagraph-capture-sizes",), "cuda_graphs", many=True),
    *without_effect(
        "is left out: Penstock does so anyway",
        "--enable-chunked-prefill --enable-auto-tool-choice --enable-prompt-tokens-details "
        "--enable-request-id-headers --enable-ssl-refresh --async-scheduling "
        "--use-tqdm-on-load --enable-server-load-tracking",
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
        "--disable-cascade-attn --enable-flashinfer-autotune --api-server-count|-asc= "
        "--preemption-mode= --mm-processor-cache-gb= --no-async-scheduling --watermark=",
    ),
    *without_effect(
        "is left out: it changes logs alone; --log-level is Penstock's",
        "--disable-log-requests --disable-log-stats --enable-log-requests --enable-log-outputs "
        "--max-log-len= --uvicorn-log-level= --disable-uvicorn-access-log --log-config-file= "
        "--disable-access-log-for-endpoints= --kv-cache-metrics --cudagraph-metrics "
        "--enable-mfu-metrics --enable-logging-iteration-details",
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
    *not_served("is not built yet: adapters cannot be loaded",
        "--enable-lora --lora-modules=* --max-loras= --max-lora-rank= --max-cpu-loras="),
    *not_served("is not built yet: --num-shard splits a model over GPUs",
        "--pipeline-parallel-size|-pp= --decode-context-parallel-size|-dcp=", "1"),
    *not_served("is not built yet: start a server for each, behind a balancer (docs/scale.md)",
        "--data-parallel-size|-dp=", "1"),
    *not_served("is not built yet", "--enable-expert-parallel|-ep --enable-eplb "
        "--enable-sleep-mode --kv-transfer-config= --kv-events-config= --headless"),
    *not_served("is not built yet: weights and KV cache lie in the GPUs' memory",
        "--cpu-offload-gb= --kv-offloading-size=", "0"),
    *not_served("is not supported: --cuda-memory-fraction bounds the KV cache, or "
        "--max-batch-total-tokens in tokens",
        "--kv-cache-memory-bytes= --num-gpu-blocks-override="),
    *not_served("is not supported: a template is given inside a tokenizer_config.json, as "
        "--tokenizer-config-path", "--chat-template="),
    *not_served("is not supported: a template reads what messages are from the model itself",
        "--chat-template-content-format=", "auto"),
    *not_served("is not supported: the model's own tokenizer is read",
        "--tokenizer= --tokenizer-revision= --tokenizer-mode= --skip-tokenizer-init",
        "auto", "hf", "fast"),
    *not_served("is not supported: config.json says what the model is",
        "--hf-overrides= --hf-config-path= --config-format= --quantization-config= "
        "--rope-scaling= --rope-theta=", "auto", "hf", "{}"),
    *not_served("is not supported: requests say it, or the model's generation_config.json",
        "--override-generation-config= --default-chat-template-kwargs=", "{}"),
    *not_served("is not supported: this server generates text",
        "--runner= --task= --convert= --model-impl= --pooler-config=",
        "auto", "generate", "none", "vllm"),
    *not_served("is not supported: log-probabilities are the model's own (raw_logprobs)",
        "--logprobs-mode=", "raw_logprobs"),
    *not_served("is not supported: no foreign code runs in the server",
        "--middleware= --logits-processors= --tool-parser-plugin= --reasoning-parser-plugin="),
    *not_served("is not supported: requests wait in the order in which they come",
        "--scheduling-policy=", "fcfs"),
    *not_served("is written otherwise: give each origin as --cors-allow-origin ORIGIN",
        "--allowed-origins=", '["*"]', "*"),
    *not_served("is not supported: CORS has no such setting here",
        "--allowed-methods= --allowed-headers= --allow-credentials", '["*"]', "*"),
    *not_served("is not supported: pictures come in requests, within the bounds of docs/api.md",
        "--limit-mm-per-prompt= --allowed-local-media-path= --allowed-media-domains=*"),
    *not_served("is left to you: Penstock reads such a file too, if the launcher takes "
        "the names in it", "--config="),
    *not_served("is not supported", "--ssl-ciphers= --response-role= --tool-server= "
        "--enable-tokenizer-info-endpoint --return-tokens-as-token-ids --grpc", "assistant"),
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
        "cuda_memory_fraction": "is 1 here and was 0.92: memory that other programs need must be "
        "left to them",
        "max_concurrent_requests": "is 128: further requests get 429 at once, where vLLM lets any "
        "number wait",
        "max_stop_sequences": "is 16 under /v1, where vLLM has no bound",
        "payload_limit": "is 2 MB a request; larger ones get 413",
        "graceful_termination_timeout": "is 90 s, in which running requests end after SIGTERM; "
        "vLLM's is 0",
        "metric_names": "is tgi: give vllm to keep dashboards that show vLLM's metrics",
    },
    variables={"VLLM_API_KEY": "API_KEY"},
    without_meaning=re.compile(r"VLLM_\w+"),
    cache="/root/.cache/huggingface",
)
