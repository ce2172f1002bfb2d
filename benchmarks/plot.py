"""Throughput and latency against concurrency, one curve a result file of `benchmarks.load`.

python -m benchmarks.plot penstock.json vllm.json --out load.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

# title, key of the figures, percentile within it
PANELS = (
    ("output tokens / s", "output_tokens_per_second", None),
    ("time to first token, p50 (ms)", "ttft_ms", "p50"),
    ("time per output token, p50 (ms)", "tpot_ms", "p50"),
    ("inter-token latency, p99 (ms)", "itl_ms", "p99"),
)


def curve(cases: list[dict[str, Any]], key: str, point: str | None) -> list[tuple[int, float]]:
    """Concurrency and figure of the closed-loop cases without shared prefixes, in order.

    Of the named cases those with 512-token prompts make a curve; of others all that share lengths
    with the first one do.
    """
    closed = [c for c in cases if c["rate"] is None and not c["case"]["shared_prefix"]]
    like = next((c for c in closed if c["case"]["name"] == "c8"), closed[0] if closed else None)
    points = []
    for each in closed:
        same = all(each["case"][k] == like["case"][k] for k in ("prompt", "output")) if like else 0
        figure = each[key] if point is None else (each[key] or {}).get(point)
        if same and figure is not None:
            points.append((each["case"]["streams"], figure))
    return sorted(points)


def plot(files: list[Path], out: Path) -> None:
    """Draws four panels. Raises ValueError when no file has a case to draw."""
    figure, axes = plt.subplots(2, 2, figsize=(11, 8))
    drawn = 0
    for path in files:
        cases = json.loads(path.read_text())["cases"]
        for axis, (title, key, point) in zip(axes.flat, PANELS, strict=True):
            points = curve(cases, key, point)
            drawn += len(points)
            axis.plot([x for x, _ in points], [y for _, y in points], "o-", label=path.stem)
            axis.set(title=title, xlabel="streams", xscale="log")
            axis.grid(alpha=0.3)
    if not drawn:
        raise ValueError(f"no closed-loop case in {[str(path) for path in files]}")
    for axis in axes.flat:
        axis.set_ylim(bottom=0)  # after the last curve: it ends the scaling to fit
    axes.flat[0].legend()
    figure.tight_layout()
    figure.savefig(out, dpi=120)


def main() -> None:
    """Draws the files that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plot", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("load.png"))
    arguments = parser.parse_args()
    plot(arguments.files, arguments.out)


if __name__ == "__main__":
    main()
