"""The demo model in every format: perplexity on text that it was not trained on, and what it knows.

    python -m benchmarks.quality --out quality.json

Makes checkpoints by `penstock quantize`, loads weights as `--quantize` does, computes in float32 on
the CPU, and prints the table of docs/quantization.md. Takes some ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

from penstock_kernels.ops import EagerPlan, StepBatch
from penstock_kernels.reference.device import TorchDevice
from penstock_shard.memory.kv_cache import allocate
from penstock_shard.model.architecture import read_architecture
from penstock_shard.model.decoder import Decoder
from penstock_shard.ranks.parallel import Group
from penstock_shard.weights import quantize
from penstock_shard.weights.calibration import Calibration
from penstock_shard.weights.checkpoint import Checkpoint
from penstock_shard.weights.load_weights import device_bytes, load_decoder

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "launcher" / "penstock_launcher" / "demo_model"
# Names in the table: a checkpoint of `penstock quantize` with its options, or `--quantize`.
CHECKPOINTS = {
    "FP8, checkpoint": ("--format", "fp8"),
    "INT8, checkpoint": ("--format", "int8"),
    "GPTQ, 8 bits": ("--format", "gptq", "--bits", "8"),
    "GPTQ, 4 bits": ("--format", "gptq"),
    "AWQ, 4 bits": ("--format", "awq"),
    "NVFP4": ("--format", "nvfp4"),
    "MXFP4": ("--format", "mxfp4"),
}
ONLINE = ("fp8", "eetq", "bitsandbytes", "bitsandbytes-nf4", "bitsandbytes-fp4")
CALIBRATION_SEED, HELD_OUT_SEED = 777, 10**6 + 1  # training has 0 and on, its evaluation 10^6
LENGTH = 512
BLOCK = 16
DTYPE, CPU = torch.float32, torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Line:
    """A row of the table."""

    name: str
    how: str
    megabytes: float  # on a GPU, in bfloat16 where nothing is quantised
    perplexity: float
    agreement: float  # share of tokens that are the original's most likely
    capitals: float  # share of right answers


def demo(module: str) -> Any:
    """A module of what made the demo model, which is no part of the packages."""
    place = str(ROOT / "demo_model")
    if place not in sys.path:
        sys.path.append(place)
    return importlib.import_module(f"penstock_demo_model.{module}")


def corpus(seed: int, documents: int) -> str:
    """Text of the demo model's own kind."""
    return "".join(
        demo("document").BEGIN + "".join(segment.text for segment in document)
        for document in demo("corpus").documents(seed, documents)
    )


def questions() -> list[tuple[str, str]]:
    """Questions after capitals as prompts, a phrasing each, and the answers."""
    countries, rng, found = demo("countries"), Random(0), []
    for country in demo("tables").COUNTRIES:
        phrasing = rng.choice(countries.CAPITAL_QUESTIONS)
        asked = countries.about(country, "capital", phrasing).question
        found.append((demo("document").BEGIN + asked, country.capital))
    return found


def loaded(folder: Path, how: str | None, fp8_rows: bool = False) -> tuple[Decoder, int]:
    """And its bytes on a GPU. fp8_rows: as `--quantize-activations fp8` has it."""
    model, group = read_architecture(folder), Group(0, 1)
    with contextlib.redirect_stderr(io.StringIO()):  # records for the launcher
        sizes = Checkpoint(folder, model.family.names)
        taken = device_bytes(model, group, sizes, torch.bfloat16, how)
        weights = Checkpoint(folder, model.family.names)
        decoder = load_decoder(model, group, weights, DTYPE, CPU, how, fp8_rows=fp8_rows)
        return decoder, taken


@torch.inference_mode()
def scores(decoder: Decoder, sequences: torch.Tensor) -> tuple[float, torch.Tensor]:
    """Perplexity, and the most likely token at each place."""
    text, lost, count, best = Calibration(decoder, sequences), 0.0, 0, []
    for _ in text.blocks():
        pass
    for tokens, logits in text.logits():
        logits = logits.view(*tokens.shape, -1)[:, :-1]
        lost += float(
            F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum")
        )
        count += tokens[:, 1:].numel()
        best.append(logits.argmax(-1).flatten())
    return float(np.exp(lost / count)), torch.cat(best)


@torch.inference_mode()
def next_tokens(decoder: Decoder, sequences: Sequence[Sequence[int]]) -> list[int]:
    """The most likely token behind each sequence, all of it computed anew."""
    lengths = np.array([len(sequence) for sequence in sequences], np.int64)
    width = -(-int(lengths.max()) // BLOCK)
    cache = allocate(decoder, len(lengths) * width + 1, BLOCK, CPU)
    table = torch.arange(1, len(lengths) * width + 1, dtype=torch.int32).view(-1, width)
    everyone = torch.arange(len(lengths))
    positions = torch.cat([torch.arange(int(length)) for length in lengths])
    batch = StepBatch(
        slot=everyone.repeat_interleave(torch.from_numpy(lengths)),
        position=positions, block_table=table, decode_rows=0,
        plan=EagerPlan(everyone, np.zeros_like(lengths), lengths),
    )  # fmt: skip
    step = TorchDevice(decoder.rope_tables(width * BLOCK, CPU), BLOCK).step(batch)
    tokens = torch.tensor([token for sequence in sequences for token in sequence])
    last = torch.from_numpy(lengths.cumsum() - 1)
    logits = decoder.head(decoder.forward(step, tokens, positions, cache, last), step)
    assert logits is not None
    return [int(token) for token in logits.argmax(-1)]


def right_answers(decoder: Decoder, tokenizer: Tokenizer, most: int = 24) -> float:
    """Share of capitals that are named in a greedy answer."""
    asked = questions()
    end = tokenizer.token_to_id("<|end|>")
    whole = [tokenizer.encode(text, add_special_tokens=False).ids for text, _ in asked]
    starts, open_ones = [len(ids) for ids in whole], set(range(len(whole)))
    for _ in range(most):
        places = sorted(open_ones)
        for place, token in zip(
            places, next_tokens(decoder, [whole[place] for place in places]), strict=True
        ):
            whole[place].append(token)
            if token == end:
                open_ones.discard(place)
        if not open_ones:
            break
    answers = [tokenizer.decode(ids[start:]) for ids, start in zip(whole, starts, strict=True)]
    named = [capital in text for text, (_, capital) in zip(answers, asked, strict=True)]
    return sum(named) / len(named)


class Source(NamedTuple):
    """Of a row: name, how it is made, folder, `--quantize`, and whether activations are in FP8."""

    name: str
    how: str
    folder: Path
    online: str | None = None
    fp8_rows: bool = False


def folders(made: Path, text: Path, samples: int, only: Sequence[str]) -> Iterator[Source]:
    """only: names of those that are made; none: all."""
    yield Source("bfloat16", "", DEMO)
    for how in ONLINE:
        if not only or how in only:
            yield Source(how, f"`--quantize {how}`", DEMO, how)
    for name, options in CHECKPOINTS.items():
        if only and name not in only:
            continue
        folder = made / name.replace(" ", "-")
        calibrated = {"gptq", "awq"} & set(options)
        code = quantize.main([
            "--model-id", str(DEMO), "--output", str(folder), *options,
            *(("--calibration", str(text)) if calibrated else ()),
            *(("--samples", str(samples), "--length", str(LENGTH)) if calibrated else ()),
        ])  # fmt: skip
        assert code == 0, name
        how = f"`penstock quantize {' '.join(options)}`"
        yield Source(name, how, folder)
        if calibrated and "8" not in options:
            how = "the same, `--quantize-activations fp8`"
            yield Source(f"{name}, activations in FP8", how, folder, fp8_rows=True)


def lines(samples: int, held_out: int, only: Sequence[str]) -> Iterator[Line]:
    with tempfile.TemporaryDirectory() as place:
        text, test = Path(place, "calibration.txt"), Path(place, "test.txt")
        text.write_text(corpus(CALIBRATION_SEED, 60 * samples), encoding="utf-8")
        test.write_text(corpus(HELD_OUT_SEED, 60 * held_out), encoding="utf-8")
        path = DEMO / "tokenizer.json"
        sequences = quantize.read_sequences(test, path, held_out, LENGTH)
        tokenizer, first = Tokenizer.from_file(str(path)), None
        for source in folders(Path(place), text, samples, only):
            decoder, taken = loaded(source.folder, source.online, source.fp8_rows)
            perplexity, best = scores(decoder, sequences)
            first = best if first is None else first
            yield Line(
                source.name, source.how, round(taken / 1e6, 2), round(perplexity, 4),
                round(float((best == first).float().mean()), 4),
                round(right_answers(decoder, tokenizer), 4),
            )  # fmt: skip


def markdown(table: Sequence[Line]) -> str:
    rows = [
        "| Format | Made by | MB | Perplexity | Same most likely token | Capitals |",
        "|---|---|---|---|---|---|",
    ]
    for line in table:
        rows.append(
            f"| {line.name} | {line.how} | {line.megabytes:.1f} | {line.perplexity:.3f} | "
            f"{line.agreement:.1%} | {line.capitals:.1%} |"
        )
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=64, help="sequences of calibration")
    parser.add_argument("--held-out", type=int, default=64, help="sequences of the test")
    parser.add_argument("--only", nargs="+", default=(), help="names of formats")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    table = []
    for line in lines(arguments.samples, arguments.held_out, arguments.only):
        print(line, flush=True)
        table.append(line)
    print(markdown(table))
    if arguments.out:
        arguments.out.write_text(json.dumps([asdict(line) for line in table], indent=1) + "\n")


if __name__ == "__main__":
    main()
