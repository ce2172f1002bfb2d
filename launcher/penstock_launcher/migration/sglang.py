"""SGLang's command line (0.5)."""

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
from penstock_launcher.spellings import SGLANG

ROWS: tuple[Row, ...] = (
    *spelled(SGLANG),
    *same(
        "--port --api-key --served-model-name --revision --dtype --kv-cache-dtype --load-format "
        "--tool-call-parser --reasoning-parser --nnodes --node-rank --log-level --device "
        "--ssl-keyfile --ssl-certfile --ssl-ca-certs",
        {"--nnodes": "also needs --master-addr and --hosts-secret-file, and --num-shard counts "
         "all hosts' shards"},
    ),
    Row(("--model",), "model_id"),
    Row(("--max-total-tokens",), "max_batch_total_tokens",
        note="is the number of tokens in the KV cache there, and the longest sequence here"),
    Row(("--max-queued-requests",), "max_concurrent_requests",
        note="also counts running requests here"),
    Row(("--cuda-graph-bs",), "cuda_graphs", many=True),
    Row(("--enable-metrics",), "metric_names", says="sglang", takes_value=False),
    *without_effect(
        "is left out: it tunes SGLang's own engine",
        "--attention-backend= --prefill-attention-backend= --decode-attention-backend= "
        "--sampling-backend= --cuda-graph-max-bs= --max-prefill-tokens= "
        "--schedule-conservativeness= "
        "--enable-torch-compile --torch-compile-max-bs= --disable-overlap-schedule "
        "--enable-mixed-chunk --num-continuous-decode-steps= --stream-interval= "
        "--disable-custom-all-reduce --enable-p2p-check --triton-attention-num-kv-splits= "
        "--disable-cuda-graph-padding --enable-nccl-nvls --random-seed= --tokenizer-worker-num= "
        "--radix-eviction-policy= --moe-runner-backend= --enable-flashinfer-allreduce-fusion",
    ),
    *without_effect(
        "is left out: llguidance holds every answer to its grammar",
        "--grammar-backend= --constrained-json-whitespace-pattern= "
        "--constrained-json-disable-any-whitespace",
    ),
    *without_effect(
        "is left out: it changes logs alone",
        "--log-level-http= --log-requests --log-requests-level= --show-time-cost "
        "--decode-log-interval= --enable-request-time-stats-logging",
    ),
    *without_effect("is left out: Penstock does so anyway",
        "--enable-cache-report --skip-server-warmup --enable-multimodal"),
    *without_effect("is left out: --step-timeout is Penstock's watchdog", "--watchdog-timeout="),
    *not_served(
        "cannot be granted: nothing in a model folder is ever executed", "--trust-remote-code"
    ),
    *not_served("is not built yet: one token a step",
        "--speculative-algorithm= --speculative-algo= --speculative-draft-model-path= "
        "--speculative-draft-model= --speculative-model= --speculative-num-steps= "
        "--speculative-eagle-topk= --speculative-num-draft-tokens= --speculative-token-map="),
    *not_served("is not built yet: adapters cannot be loaded",
        "--enable-lora --lora-paths=* --max-loras-per-batch= --max-lora-rank= --lora-backend="),
    *not_served("is not built yet: --num-shard splits a model over GPUs",
        "--pipeline-parallel-size|--pp-size|--pp=", "1"),
    *not_served("is not built yet: start a server for each, behind a balancer (docs/scale.md)",
        "--data-parallel-size|--dp-size|--dp= --load-balance-method= --enable-dp-attention", "1"),
    *not_served("is not built yet", "--expert-parallel-size|--ep-size|--ep= "
        "--disaggregation-mode= --enable-hierarchical-cache --hicache-ratio= --hicache-size= "
        "--enable-memory-saver --enable-two-batch-overlap --enable-eplb", "1", "null"),
    *not_served("is not built yet: weights and KV cache lie in the GPUs' memory",
        "--cpu-offload-gb=", "0"),
    *not_served("is two options here: --master-addr HOST --master-port PORT",
        "--dist-init-addr|--nccl-init-addr="),
    *not_served("is not supported: a template is given inside a tokenizer_config.json, as "
        "--tokenizer-config-path", "--chat-template= --completion-template="),
    *not_served("is not supported: the model's own tokenizer is read",
        "--tokenizer-path= --tokenizer-mode= --skip-tokenizer-init", "auto"),
    *not_served("is not supported: config.json says what the model is",
        "--json-model-override-args= --quantization-param-path=", "{}"),
    *not_served("is not supported: this server generates text", "--is-embedding"),
    *not_served("is not supported: requests wait in the order in which they come",
        "--schedule-policy= --enable-priority-scheduling", "fcfs"),
    *not_served("is not supported: metrics and management have the key of everything else",
        "--admin-api-key="),
    *not_served("is not supported: no foreign code runs in the server",
        "--enable-custom-logit-processor"),
    *not_served("is not supported: CUDA_VISIBLE_DEVICES says which GPUs are used",
        "--base-gpu-id= --gpu-id-step=", "0", "1"),
    *not_served("is not supported: a stream sends what is new, in every step",
        "--incremental-streaming-output"),
)  # fmt: skip

SERVER = Server(
    name=SGLANG,
    image=image("sglang"),
    programs=(
        re.compile(r"(?:\S*/)?python[\d.]* -m sglang\.launch_server"),
        re.compile(r"(?:\S*/)?sglang serve"),
    ),
    rows=ROWS,
    added={"port": "30000", "hostname": "127.0.0.1"},
    defaults={
        "max_concurrent_requests": "is 128: further requests get 429 at once, where SGLang lets "
        "any number wait",
        "max_stop_sequences": "is 16 under /v1, where SGLang has no bound",
        "payload_limit": "is 2 MB a request; larger ones get 413",
    },
    variables={},
    without_meaning=re.compile(r"(?:SGLANG|SGL)_\w+"),
    cache="/root/.cache/huggingface",
)
