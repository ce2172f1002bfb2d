"""Where the time of a case went: what the server's /metrics says of its steps, before and after."""

from __future__ import annotations

import urllib.request
from collections.abc import Mapping
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

Samples = Mapping[tuple[str, str], float]  # by name, and method where there is one


def parse(text: str) -> Samples:
    """All samples that are no buckets."""
    return {
        (sample.name, sample.labels.get("method", "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_bucket")
    }


def scrape(url: str) -> Samples:
    """What a server says now."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:
        return parse(answer.read().decode())


def between(before: Samples, after: Samples, seconds: float) -> dict[str, Any]:
    """The steps of a case that took so long, by whether they held prompts; times of the device.

    `idle_share`: of the case's time in which no step ran, its beginning and end included.
    """

    def grown(name: str, method: str = "") -> float:
        return after.get((name, method), 0.0) - before.get((name, method), 0.0)

    def steps(method: str) -> dict[str, float]:
        count = grown("tgi_batch_inference_duration_count", method)
        busy = grown("tgi_batch_inference_duration_sum", method)
        return {
            "steps": int(count),
            "seconds": round(busy, 4),
            "ms_a_step": round(1e3 * busy / max(count, 1), 3),
            "share": round(busy / seconds, 4),
        }

    decode, prompts = steps("decode"), steps("prefill")
    count = max(decode["steps"] + prompts["steps"], 1)
    looked_up = grown("penstock_prefix_cache_queried_tokens_total")
    return {
        "decode": decode,
        "with_prompts": prompts,
        "idle_share": round(1 - decode["share"] - prompts["share"], 4),
        "rows_a_step": round(grown("penstock_step_rows_sum") / count, 2),
        "tokens_a_step": round(grown("penstock_step_tokens_sum") / count, 2),
        "prompt_tokens": int(looked_up),
        "cached_tokens": int(grown("penstock_prefix_cache_hit_tokens_total")),
    }
