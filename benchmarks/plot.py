"""Throughput and latency against concurrency, one curve a result file of `benchmarks.load`.

python -m benchmarks.plot penstock.json vllm.json --out load.png
python -m benchmarks.plot 8b.json 1b.json --peers benchmarks/peers.json --out load.png

With --peers the figures of other engines for the same shape and cases are drawn as dashed lines.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from penstock.bench.plot import PANELS, pyplot


def like_first(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Greedy closed-loop cases without shared prefixes that make one curve.

    Of the named cases those with 512-token prompts; of others all that share lengths with the
    first one.
    """
    closed = [
        c
        for c in cases
        if c["rate"] is None and not c["case"]["shared_prefix"] and not c["case"].get("temperature")
    ]
    like = next((c for c in closed if c["case"]["name"] == "c8"), closed[0] if closed else None)
    lengths = ("prompt", "output")
    return [c for c in closed if like and all(c["case"][k] == like["case"][k] for k in lengths)]


def curve(cases: list[dict[str, Any]], key: str, point: str | None) -> list[tuple[int, float]]:
    """Concurrency and figure of the cases that make a curve, in order."""
    found = []
    for each in like_first(cases):
        figure = each[key] if point is None else (each[key] or {}).get(point)
        if figure is not None:
            found.append((each["case"]["streams"], figure))
    return sorted(found)


def peer_curve(
    cases: list[dict[str, Any]], engine: dict[str, dict[str, float]], key: str
) -> list[tuple[int, float]]:
    """Another engine's figures for the same cases, where it has some."""
    found = []
    for each in like_first(cases):
        figure = engine.get(each["case"]["name"], {}).get(key)
        if figure is not None:
            found.append((each["case"]["streams"], figure))
    return sorted(found)


def plot(files: list[Path], out: Path, peers: Path | None = None) -> None:
    """Draws four panels. Raises ValueError when no file has a case to draw."""
    figure, axes = pyplot().subplots(2, 2, figsize=(11, 8))
    others = json.loads(peers.read_text()) if peers else {"engines": {}, "shapes": {}}
    drawn = 0
    for path in files:
        content = json.loads(path.read_text())
        name = f"Penstock {content['shape']}" if "shape" in content else path.stem
        cases, shape = content["cases"], others["shapes"].get(content.get("shape"), {})
        for axis, (title, key, point) in zip(axes.flat, PANELS, strict=True):
            points = curve(cases, key, point)
            drawn += len(points)
            axis.plot(*_columns(points), "o-", label=name)
            for engine in others["engines"]:
                points = peer_curve(cases, shape.get(engine, {}), key)
                axis.plot(*_columns(points), ".--", label=f"{engine} {content['shape']}")
            axis.set(title=title, xlabel="streams", xscale="log")
            axis.grid(alpha=0.3)
    if not drawn:
        raise ValueError(f"no closed-loop case in {[str(path) for path in files]}")
    for axis in axes.flat:
        axis.set_ylim(bottom=0)  # after the last curve: it ends the scaling to fit
    axes.flat[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(out, dpi=120)


def _columns(points: list[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def main() -> None:
    """Draws the files that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plot", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--peers", type=Path, help="figures of other engines, by shape and case")
    parser.add_argument("--out", type=Path, default=Path("load.png"))
    arguments = parser.parse_args()
    plot(arguments.files, arguments.out, arguments.peers)


if __name__ == "__main__":
    main()
