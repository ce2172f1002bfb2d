"""What a case's steps were, from two looks at the metrics of a server."""

from __future__ import annotations

from benchmarks.steps import between, parse

from penstock_router.metrics import Metrics


def test_what_lies_between_two_looks() -> None:
    metrics = Metrics(64, 96)
    metrics.on_step(2, 300, 4, 0.5)
    metrics.on_admit(0.1, 10, 100)
    before = parse(metrics.render().decode())
    metrics.on_step(1, 40, 8, 0.020)
    metrics.on_step(3, 60, 0, 0.040)
    for _ in range(4):
        metrics.on_step(0, 0, 9, 0.010)
    metrics.on_admit(0.1, 30, 50)
    assert between(before, parse(metrics.render().decode()), 0.125) == {
        "decode": {"steps": 4, "seconds": 0.04, "ms_a_step": 10.0, "share": 0.32},
        "with_prompts": {"steps": 2, "seconds": 0.06, "ms_a_step": 30.0, "share": 0.48},
        "idle_share": 0.2,
        "rows_a_step": 8.0,  # 9 + 3 + 4 x 9 of six steps
        "tokens_a_step": 24.0,  # 48 + 60 + 4 x 9
        "prompt_tokens": 50,
        "cached_tokens": 30,
    }
