"""SGLang's command line (0.5)."""

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
from penstock_launcher.spellings import SGLANG, renamed

ROWS: tuple[Row, ...] = (
    *spelled(SGLANG),
    *same(
        "--port --api-key --served-model-name --revision --dtype --kv-cache-dtype --load-format "
        "--tool-call-parser --reasoning-parser --nnodes --node-rank --log-level --device "
        "--ssl-keyfile --ssl-certfile --ssl-ca-certs",
        {"--nnodes": "also needs --master-addr and --hosts-secret-file, and --num-shard counts "
         "all hosts' shards"},
    ),
    Row(("--preferred-sampling-params",), "override_generation_config"),
    Row(("--model",), "model_id"),
    Row(("--max-total-tokens",), "max_batch_total_tokens",
        note="is the number of tokens in the KV cache there, and the longest sequence here"),
    Row(("--max-queued-requests",), "max_concurrent_requests",
        note="also counts running requests here"),
    Row(("--cuda-graph-bs",), "cuda_graphs", many=True),
    Row(("--enable-metrics",), "metric_names", says="sglang", takes_value=False),
    Row(("--sampling-defaults",), "generation_config",
        value=renamed({"model": "auto", "openai": "none"})),
    *without_effect(
        "is left out: it tunes SGLang's own engine",
        "--attention-backend= --prefill-attention-backend= --decode-attention-backend= "
        "--sampling-backend= --cuda-graph-max-bs= --max-prefill-tokens= "
        "--schedule-conservativeness= "
        "--enable-torch-compile --torch-compile-max-bs= --disable-overlap-schedule "
        "--enable-mixed-chunk --num-continuous-decode-steps= --stream-interval= "
        "--disable-custom-all-reduce --enable-p2p-check --triton-attention-num-kv-splits= "
        "--disable-cuda-graph-padding --enable-nccl-nvls --random-seed= --tokenizer-worker-num= "
        "--radix-eviction-policy= --moe-runner-backend= --enable-flashinfer-allreduce-fusion "
        "--mm-attention-backend= --fp8-gemm-backend= --sleep-on-idle --enable-fp32-lm-head "
        "--swa-full-tokens-ratio= --hybrid-kvcache-ratio= --disable-hybrid-swa-memory "
        "--dist-timeout= --nccl-port= --warmups= --model-loader-extra-config= "
        "--pp-max-micro-batch-size= --load-watch-interval= --gc-warning-threshold-secs=",
    ),
    *without_effect(
        "is left out: llguidance holds every answer to its grammar",
        "--grammar-backend= --constrained-json-whitespace-pattern= "
        "--constrained-json-disable-any-whitespace",
    ),
    *without_effect(
        "is left out: it changes logs alone",
        "--log-level-http= --log-requests --log-requests-level= --show-time-cost "
        "--decode-log-interval= --enable-request-time-stats-logging --crash-dump-folder=",
    ),
    *without_effect("is left out: Penstock does so anyway",
        "--enable-cache-report --skip-server-warmup --enable-multimodal"),
    *without_effect("is left out: --metric-names sglang shows what there is",
        "--enable-metrics-for-all-schedulers --collect-tokens-histogram "
        "--bucket-time-to-first-token=* --bucket-inter-token-latency=* "
        "--bucket-e2e-request-latency=* --prompt-tokens-buckets=* --generation-tokens-buckets=*"),
    *without_effect("is left out: --otlp-endpoint switches traces on", "--enable-trace"),
    *without_effect("is left out: logits that are no numbers end their own request alone",
        "--crash-on-nan"),
    *without_effect("is left out: it names weights, and changes nothing", "--weight-version="),
    *without_effect("is left out: --step-timeout is Penstock's watchdog", "--watchdog-timeout="),
    *not_served(
        "cannot be granted: nothing in a model folder is ever executed", "--trust-remote-code"
    ),
    *not_served("is not built yet: one token a step",
        "--speculative-algorithm= --speculative-algo= --speculative-draft-model-path= "
        "--speculative-draft-model= --speculative-model= --speculative-num-steps= "
        "--speculative-eagle-topk= --speculative-num-draft-tokens= --speculative-token-map= "
        "--speculative-draft-model-revision= --speculative-attention-mode= "
        "--speculative-accept-threshold-single= --speculative-accept-threshold-acc="),
    *not_served("is not built yet: adapters cannot be loaded, but merged (docs/adapters.md)",
        "--enable-lora --lora-paths=* --max-loras-per-batch= --max-lora-rank= --lora-backend= "
        "--max-loaded-loras= --lora-target-modules=* --lora-eviction-policy="),
    *not_served("is not built yet: --num-shard splits a model over GPUs",
        "--pipeline-parallel-size|--pp-size|--pp=", "1"),
    *not_served("is not built yet: start a server for each, behind a balancer (docs/scale.md)",
        "--data-parallel-size|--dp-size|--dp= --load-balance-method= --enable-dp-attention", "1"),
    *not_served("is not built yet", "--expert-parallel-size|--ep-size|--ep= "
        "--disaggregation-mode= --enable-hierarchical-cache --hicache-ratio= --hicache-size= "
        "--enable-memory-saver --enable-two-batch-overlap --enable-eplb --moe-a2a-backend= "
        "--hicache-write-policy= --kv-events-config=", "1", "null", "none"),
    *not_served("is not built yet: weights and KV cache lie in the GPUs' memory",
        "--cpu-offload-gb=", "0"),
    *not_served("is two options here: --master-addr HOST --master-port PORT",
        "--dist-init-addr|--nccl-init-addr="),
    *not_served("is not supported: a prompt is text to the end; --chat-template is for "
        "conversations", "--completion-template="),
    *not_served("is not supported: penstock quantize makes such a checkpoint",
        "--modelopt-quant= --modelopt-checkpoint-restore-path= --modelopt-checkpoint-save-path="),
    *not_served("is left to you: --config here reads a file too, by the names that the launcher "
        "takes", "--config="),
    *not_served("is not supported: there is one implementation of each model", "--model-impl=",
        "auto", "sglang"),
    *not_served("is not built yet: pictures are refused", "--mm-process-config=", "{}"),
    *not_served("is not supported", "--tool-server= --file-storage-path= --stream-output "
        "--tokenizer-metrics-custom-labels-header= --tokenizer-metrics-allowed-custom-labels=*"),
    *not_served("is not supported: the model's own tokenizer is read",
        "--tokenizer-path= --tokenizer-mode= --skip-tokenizer-init", "auto"),
    *not_served("is not supported: config.json says what the model is",
        "--quantization-param-path="),
    *not_served("is not supported: this server generates text", "--is-embedding"),
    *not_served("is not supported: requests wait in the order in which they come",
        "--schedule-policy=", "fcfs"),
    *without_effect("is left out: requests may have a priority in any case, larger is sooner",
        "--enable-priority-scheduling"),
    *not_served("is not supported: larger is sooner, and running requests go on",
        "--schedule-low-priority-values-first --priority-scheduling-preemption-threshold="),
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
        "max_concurrent_requests": Limit(
            "any number waits",
            "128; further ones get 429 at once",
            "1000000",
            "is 128: further requests get 429 at once, where SGLang lets any number wait",
        ),
        "max_stop_sequences": Limit(
            "no bound",
            "16 under /v1",
            "256",
            "is 16 under /v1, where SGLang has no bound",
        ),
        "payload_limit": Limit(
            "no bound",
            "2 MB a request; larger ones get 413",
            "2000000000",
            "is 2 MB a request; larger ones get 413",
        ),
        "cuda_memory_fraction": Limit(
            "what is left beside steps and graphs",
            "1: all of a GPU, steps and graphs within",
            "0.9",
        ),
        "max_batch_prefill_tokens": Limit(
            "2048 to 16384, by the GPU's memory", "4096; on a CPU 1024", "8192"
        ),
        "max_batch_size": Limit(
            "by the KV cache", "max-concurrent-requests, at most 256; on a CPU 64", "1024"
        ),
        "max_connections_per_client": Limit("no bound", "1024", "1000000"),
        "kv_block_size": Limit("1", "64; on a CPU 16", "1"),
        "metric_names": Limit("none, until --enable-metrics", "TGI's", "sglang"),
    },
    variables={},
    without_meaning=re.compile(r"(?:SGLANG|SGL)_\w+"),
    cache="/root/.cache/huggingface",
)
