"""What the steps of a running server take, for `--costs`.

  python -m benchmarks.autoscaling.measure http://127.0.0.1:8080 --out steps.json

So many requests at a time as steps are to have rows, and prompts one by one; times are those of the
device, as /metrics tells them. Nobody else should call the server meanwhile.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.steps import scrape

ROWS = (1, 8, 32, 64, 128)
WORDS = (128, 512, 1024)  # of prompts; a word is a token or a few
ANSWER = 64  # tokens of a request that decodes
WAIT_SECONDS = 600.0


def main() -> int:
    """Measure, and write the file."""
    head, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.autoscaling.measure",
        description=head,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("url")
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS, help="rows of decode steps")
    parser.add_argument("--words", type=int, nargs="+", default=WORDS, help="words of prompts")
    parser.add_argument("--api-key", default="", help="where the server wants one")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        found = measure(
            arguments.url.rstrip("/"), arguments.rows, arguments.words, arguments.api_key
        )
    except OSError as error:
        print(f"error: {arguments.url}: {error}", file=sys.stderr)
        return 1
    arguments.out.write_text(json.dumps(found, indent=1))
    for step in found["steps"]:
        print(f"{step['step']:20} {step['wall_us'] / 1000:9.2f} ms")
    return 0


def measure(url: str, rows: Sequence[int], words: Sequence[int], key: str = "") -> dict[str, Any]:
    """The contents of a file for `costs.measured`. Raises OSError."""
    chance = random.Random()  # no prompt is in the cache
    steps = []
    _generate(url, _prompt(chance, 8), ANSWER, key)  # the first one warms up
    context = 0.0
    for count in rows:
        prompts = [_prompt(chance, 8) for _ in range(count)]
        seconds, number, grown = _grown(url, "decode", prompts, ANSWER, key)
        per_step = (grown["tokens"] - count) / max(number, 1)  # first tokens come of prompts
        steps.append({"step": f"decode {round(per_step)} rows", "wall_us": 1e6 * seconds / number})
        context = grown["prompt"] / count + ANSWER / 2
    for length in words:
        prompts = [_prompt(chance, length)]
        seconds, number, grown = _grown(url, "prefill", prompts, 1, key)
        tokens = round(grown["prompt"] / number)
        steps.append({"step": f"mixed 0 + {tokens}", "wall_us": 1e6 * seconds / number})
    date = datetime.now(UTC).date().isoformat()
    return {"url": url, "date": date, "context": round(context), "steps": steps}


def _grown(
    url: str, method: str, prompts: Sequence[str], answer: int, key: str
) -> tuple[float, float, dict[str, float]]:
    """Seconds and number of the steps of a kind while the prompts are served, all at a time, and
    how many tokens there were."""
    before = scrape(url)
    with ThreadPoolExecutor(len(prompts)) as pool:
        list(pool.map(lambda prompt: _generate(url, prompt, answer, key), prompts))
    after = scrape(url)

    def grown(name: str, method: str = "") -> float:
        return after.get((name, method), 0.0) - before.get((name, method), 0.0)

    tokens = {
        "tokens": grown("tgi_request_generated_tokens_sum"),
        "prompt": grown("tgi_request_input_length_sum"),
    }
    number = grown("tgi_batch_inference_duration_count", method)
    if number < 1:
        raise OSError(
            f"/metrics tells of no {method} step while {len(prompts)} prompts were served"
        )
    return grown("tgi_batch_inference_duration_sum", method), number, tokens


def _prompt(chance: random.Random, words: int) -> str:
    return " ".join(str(chance.randrange(10, 100)) for _ in range(words))


def _generate(url: str, prompt: str, answer: int, key: str) -> None:
    body = {"inputs": prompt, "parameters": {"max_new_tokens": answer, "ignore_eos": True}}
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(f"{url}/generate", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=WAIT_SECONDS) as reply:
            reply.read()
    except urllib.error.HTTPError as error:
        raise OSError(f"{error}: {error.read(300).decode(errors='replace')}") from None


if __name__ == "__main__":
    sys.exit(main())
