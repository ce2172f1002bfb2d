"""A run as vLLM's benchmark writes it, for scripts that read such files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.bench.compare import flat


def vllm_result(run: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """The object of a `--save-result` file."""
    goodput = run.get("goodput") or {}
    return {
        "date": facts["date"],
        "endpoint_type": facts["backend"],
        "backend": facts["backend"],
        "label": run["label"],
        "model_id": facts["model"],
        "tokenizer_id": facts["tokenizer"],
        "num_prompts": run["requests"],
        "request_rate": "inf" if run["request_rate"] is None else run["request_rate"],
        "burstiness": run["burstiness"],
        "max_concurrency": run["max_concurrency"],
        "duration": run["seconds"],
        "completed": run["completed"],
        "failed": run["failed"],
        "total_input_tokens": run["prompt_tokens"],
        "total_output_tokens": run["output_tokens"],
        "request_throughput": run["requests_per_second"],
        "request_goodput": goodput.get("requests_per_second"),
        "output_throughput": run["output_tokens_per_second"],
        "total_token_throughput": run["total_tokens_per_second"],
        "prefill_throughput": run["prefill_tokens_per_second"],
        "decode_throughput": run["decode_tokens_per_second"],
        "max_concurrent_requests": run["most_in_flight"],
        "gpus": run["gpus"],
        **flat(run),
    }
