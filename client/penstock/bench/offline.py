"""What the benchmarks of the offline engine have in common: options, prompts, results."""

from __future__ import annotations

import argparse
import json
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from penstock import LLM, SamplingParams
from penstock.bench.lengths import Lengths
from penstock.bench.options import lengths, token_range, whole
from penstock.bench.prompts import RandomPrompts
from penstock.engine_args import HONOURED
from penstock_proto.config_file import Parser


def offline_parser(prog: str, description: str, *, prompt: str, output: str) -> Any:
    """A parser with the options that all share; prompt, output: lengths by default."""
    parser = Parser(prog=prog, description=description)
    add = parser.add_argument
    add("--model", help="folder or hub id; default: the built-in demo model")
    add("--input-len", "--random-input-len", type=lengths, default=prompt, metavar="LENGTHS")
    add("--output-len", "--random-output-len", type=lengths, default=output, metavar="LENGTHS")
    add("--token-range", type=token_range, default="10-1000", metavar="LOW-HIGH")
    add("--seed", type=whole(0, 2**32 - 1), help="of the prompts; default: a fresh one")
    add("--disable-tqdm", action="store_true")
    add("--out", "--output-json", type=Path, metavar="FILE", help="write the result as JSON")
    group = parser.add_argument_group("the engine, by the names of vLLM's arguments")
    for name in HONOURED:
        group.add_argument(f"--{name.replace('_', '-')}", type=value, metavar="VALUE")
    return parser


def value(text: str) -> Any:
    """true and false, numbers, else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def engine(arguments: argparse.Namespace, **defaults: Any) -> LLM:
    """The engine that the options describe."""
    given = {name: getattr(arguments, name) for name in HONOURED}
    given = {name: value for name, value in given.items() if value is not None}
    return LLM(arguments.model, **defaults | given)


def asks(
    arguments: argparse.Namespace, count: int, name: str, output: Lengths | None = None
) -> tuple[list[Any], list[SamplingParams]]:
    """Random prompts of token ids, and greedy parameters that generate just so many tokens."""
    if arguments.seed is None:
        arguments.seed = secrets.randbits(32)
    drawn = RandomPrompts(
        count=count,
        prompt=arguments.input_len,
        output=output or arguments.output_len,
        name=name,
    ).draw(arguments.seed, arguments.token_range)
    prompts = [{"prompt_token_ids": each.ids} for each in drawn]
    params = [
        SamplingParams(temperature=0.0, max_tokens=each.output, ignore_eos=True) for each in drawn
    ]
    return prompts, params


def write(arguments: argparse.Namespace, figures: dict[str, Any]) -> None:
    """Prints the figures, and writes them where the options say so."""
    for name, figure in figures.items():
        if isinstance(figure, int | float):
            print(f"  {name:<28}{figure:>14,}", flush=True)
    if arguments.out is not None:
        given = {k: v if value_is_json(v) else str(v) for k, v in vars(arguments).items()}
        given["api_key"] = None
        arguments.out.write_text(json.dumps(figures | {"arguments": given}, indent=1) + "\n")


def value_is_json(given: object) -> bool:
    """Whether JSON has such a value."""
    return given is None or isinstance(given, bool | int | float | str | list)


def total_tokens(outputs: Sequence[Any]) -> tuple[int, int]:
    """Of all prompts and of all answers."""
    prompts = sum(len(each.prompt_token_ids or ()) for each in outputs)
    return prompts, sum(len(one.token_ids) for each in outputs for one in each.outputs)
