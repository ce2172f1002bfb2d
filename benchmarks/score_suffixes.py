"""Choosing the likeliest of many suffixes of one prefix: suffixes a second, in one run.

    python -m benchmarks.score_suffixes --groups 8                       # on a CPU, the demo model
    python -m benchmarks.score_suffixes --model llama-3.1-8b --device cuda --dtype bfloat16 \\
        --groups 700 --others 20 --max-concurrent-requests 2048 --out scores.json

The whole task is 700 groups of 100 (70 thousand sequences). Ways, of which all but the first take
the first `--others` groups only:

  a request a group       SGLang's /generate, with `logprob_start_len` at the end of the prefix
  a request a suffix      the same for each suffix by itself, as many sequences at once
  a suffix without cache  the same with log-probabilities of the whole prompt, so all is computed
  transformers            a forward pass over the suffixes of a group, each with its prefix
  transformers, prefix    the prefix computed once a group, its keys and values repeated

Every way must choose the same suffixes, but for those within rounding.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import aiohttp
from benchmarks.configs import SHAPES, write_model_folder
from benchmarks.load import write_json
from benchmarks.machine import ROOT, facts, wait_until_quiet
from benchmarks.server import penstock

DEMO_MODEL = ROOT / "launcher" / "penstock_launcher" / "demo_model"
ROUNDING = 0.05  # nats: suffixes so near to the best may be chosen instead of it, in bfloat16


@dataclass(frozen=True, slots=True)
class Group:
    """Suffixes that are scored behind one prefix, as token ids."""

    prefix: list[int]
    suffixes: list[list[int]]


@dataclass(frozen=True, slots=True)
class Measured:
    """One way. scores: the summed log-probability of every suffix of every group."""

    way: str
    seconds: float
    scores: list[list[float]]

    @property
    def rate(self) -> float:
        """Suffixes a second."""
        return sum(map(len, self.scores)) / self.seconds


def draw_groups(arguments: argparse.Namespace, vocabulary: int) -> list[Group]:
    """Random prefixes and suffixes; those of a group begin alike, as answers do."""
    chance = random.Random(arguments.seed)

    def tokens(count: int) -> list[int]:
        return [chance.randrange(vocabulary // 8, vocabulary // 2) for _ in range(count)]

    groups = []
    for _ in range(arguments.groups):
        prefix, common = tokens(arguments.prefix), tokens(2)
        lengths = [chance.randint(2, arguments.suffix) for _ in range(arguments.suffixes)]
        groups.append(Group(prefix, [common + tokens(length) for length in lengths]))
    return groups


class Client:
    """Asks a running server."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session, self._url = session, url

    async def scores(self, prefix: int, prompts: list[list[int]], start: int) -> list[float]:
        """Of the tokens behind the prefix, whose length is given, of each prompt. start: the place
        from which log-probabilities are asked for."""
        body = {
            "input_ids": prompts,
            "sampling_params": {"max_new_tokens": 0, "temperature": 0},
            "return_logprob": True,
            "logprob_start_len": start,
        }
        async with self._session.post(f"{self._url}/generate", json=body) as answer:
            answers = await answer.json()
            if answer.status != 200:
                raise RuntimeError(f"{answer.status}: {answers}")
        entries = [one["meta_info"]["input_token_logprobs"] for one in answers]
        return [sum(value for value, _, _ in row[prefix - start :]) for row in entries]

    async def group(self, group: Group) -> list[float]:
        """All suffixes in one request."""
        prompts = [group.prefix + suffix for suffix in group.suffixes]
        return await self.scores(len(group.prefix), prompts, len(group.prefix) - 1)

    async def each(self, group: Group, whole: bool) -> list[float]:
        """A request a suffix. whole: nothing may come from the cache."""
        start = 0 if whole else len(group.prefix) - 1
        rows = await asyncio.gather(
            *(
                self.scores(len(group.prefix), [group.prefix + suffix], start)
                for suffix in group.suffixes
            )
        )
        return [score for [score] in rows]

    async def flush(self) -> None:
        """Empty the prefix cache, so that no way finds what another one left."""
        async with self._session.post(f"{self._url}/flush_cache?timeout=60") as answer:
            answer.raise_for_status()


async def timed(
    way: str,
    groups: Sequence[Group],
    at_once: int,
    scores: Callable[[Group], Awaitable[list[float]]],
) -> Measured:
    """Score groups, so many at a time."""
    slots = asyncio.Semaphore(at_once)

    async def one(group: Group) -> list[float]:
        async with slots:
            return await scores(group)

    started = time.monotonic()
    rows = await asyncio.gather(*map(one, groups))
    return Measured(way, time.monotonic() - started, rows)


async def ask(
    url: str, groups: list[Group], warm: Group, arguments: argparse.Namespace
) -> list[Measured]:
    """All ways of the server's."""
    limit = aiohttp.TCPConnector(limit=arguments.at_once * arguments.suffixes)
    timeout = aiohttp.ClientTimeout(total=None)
    some, at_once = groups[: arguments.others], arguments.at_once
    async with aiohttp.ClientSession(connector=limit, timeout=timeout) as session:
        client = Client(session, url)

        async def whole(group: Group) -> list[float]:
            return await client.each(group, True)

        async def each(group: Group) -> list[float]:
            return await client.each(group, False)

        ways = (
            ("a request a group", groups, client.group),
            ("a request a suffix", some, each),
            ("a suffix without cache", some, whole),
        )
        measured = []
        for way, share, scores in ways:
            await scores(warm)
            await client.flush()
            wait_until_quiet(patience=arguments.patience)
            measured.append(await timed(way, share, at_once, scores))
            print(f"{way:24} {measured[-1].rate:10.1f} suffixes/s", flush=True)
        return measured


def write_random_model(arguments: argparse.Namespace, folder: Path) -> Path:
    """A model of a shape, with random weights that both sides read."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    write_model_folder(arguments.model, folder)
    torch.manual_seed(arguments.seed)
    with torch.device(arguments.device):
        model = AutoModelForCausalLM.from_config(
            AutoConfig.from_pretrained(folder), dtype=getattr(torch, arguments.dtype)
        )
    model.save_pretrained(folder)
    return folder


def ask_transformers(
    model: str, groups: list[Group], arguments: argparse.Namespace
) -> list[Measured]:
    """Both of its ways, in a process of its own."""
    task = {
        "model": model,
        "device": arguments.device,
        "dtype": arguments.dtype,
        "batch": arguments.transformers_batch,
        "patience": arguments.patience,
        "groups": [asdict(group) for group in groups],
    }
    command = [sys.executable, "-m", "benchmarks.score_transformers"]
    ended = subprocess.run(
        command, input=json.dumps(task), stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT
    )
    measured = [Measured(**way) for way in json.loads(ended.stdout.rsplit("\n", 2)[-2])]
    for way in measured:
        print(f"{way.way:24} {way.rate:10.1f} suffixes/s", flush=True)
    return measured


def disagreements(ways: Sequence[Measured]) -> int:
    """Groups in which a way chooses a suffix that is not among the best of the first way."""
    first, count = ways[0].scores, 0
    for way in ways[1:]:
        for mine, theirs in zip(first, way.scores, strict=False):
            chosen = max(range(len(theirs)), key=theirs.__getitem__)
            count += mine[chosen] < max(mine) - ROUNDING
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--model", default="demo", help=f"a folder, demo, or {', '.join(SHAPES)}")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--groups", type=int, default=8)
    parser.add_argument("--others", type=int, default=4, help="groups that all other ways take")
    parser.add_argument("--suffixes", type=int, default=100)
    parser.add_argument("--prefix", type=int, default=500, help="tokens")
    parser.add_argument("--suffix", type=int, default=10, help="tokens, at most, but two")
    parser.add_argument("--at-once", type=int, default=4, help="groups")
    parser.add_argument("--max-concurrent-requests", type=int, default=512)
    parser.add_argument("--transformers-batch", type=int, default=25, help="sequences")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--patience", type=float, default=60.0, help="s, for a quiet machine")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = DEMO_MODEL if arguments.model == "demo" else Path(arguments.model)
        if arguments.model in SHAPES:
            model = write_random_model(arguments, folder / arguments.model)
        vocabulary = json.loads((model / "config.json").read_text())["vocab_size"]
        warm, *groups = draw_groups(
            argparse.Namespace(**{**vars(arguments), "groups": arguments.groups + 1}), vocabulary
        )
        options = ["--model-id", str(model), "--device", arguments.device]
        options += ["--dtype", arguments.dtype]
        options += ["--max-concurrent-requests", str(arguments.max_concurrent_requests)]
        options += ["--payload-limit", str(64 << 20), "--max-requests-per-client", "0"]
        with penstock(options, folder / "log") as server:
            ways = asyncio.run(ask(server.url, groups, warm, arguments))
        ways += ask_transformers(str(model), [warm, *groups[: arguments.others]], arguments)
    figures: dict[str, Any] = {
        "machine": facts(),
        "arguments": {name: str(value) for name, value in vars(arguments).items()},
        "suffixes_per_second": {way.way: round(way.rate, 1) for way in ways},
        "ratio_of_a_request_a_group_to": {
            way.way: round(ways[0].rate / way.rate, 2) for way in ways[1:]
        },
        "groups_chosen_otherwise": disagreements(ways),
    }
    print(json.dumps(figures, indent=1))
    if arguments.out:
        write_json(arguments.out, figures)


if __name__ == "__main__":
    main()
