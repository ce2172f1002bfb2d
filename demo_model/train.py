"""Train the model that ships with the launcher: `python demo_model/train.py --out FOLDER`."""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import time
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers

from penstock_demo_model.corpus import documents, text
from penstock_demo_model.encoding import encode, encode_corpus
from penstock_demo_model.evaluation import evaluate
from penstock_demo_model.tokenizer import save_tokenizer, train_tokenizer
from penstock_demo_model.training import Batches, Recipe, build_model, save_model, train

_HELD_OUT_SEED = 10**6  # training uses the seeds 0, 1, 2 and so on


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the model")
    parser.add_argument("--evaluation", type=Path, help="file for the evaluation (JSON)")
    parser.add_argument("--steps", type=int, default=1700)
    parser.add_argument("--batch-tokens", type=int, default=131_072)
    parser.add_argument("--shards", type=int, default=160, help="of the corpus, one seed each")
    parser.add_argument("--shard-documents", type=int, default=10_000)
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--evaluated-per-task", type=int, default=300)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def _environment(device: str) -> dict[str, str]:
    return {
        "date": datetime.date.today().isoformat(),
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.processor(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "tokenizers": tokenizers.__version__,
    }


def _report(evaluation: dict[str, Any]) -> None:
    """Print the evaluation as tables."""
    for question, row in evaluation["capitals"]["by_phrasing"].items():
        print(f"{question:40} plain {row['plain']:7.1%} chat {row['chat']:7.1%}")
    for task, score in evaluation["tasks_exact_match"].items():
        print(f"{task:40} {score:7.1%}")
    for sample in evaluation["samples"]:
        print(f"\n> {sample['prompt']}\nplain: {sample['plain']}\nchat: {sample['chat']}")
    print(f"capitals {evaluation['capitals']['mean']}, loss {evaluation['held_out_loss']}")


def main() -> None:
    """Text, tokenizer, training, files, evaluation."""
    args = _arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.backends.cuda.matmul.allow_tf32 = False  # the evaluation runs in true float32
    began = time.perf_counter()
    tokenizer = train_tokenizer(map(text, documents(0, 6 * args.shard_documents)), args.vocabulary)
    save_tokenizer(tokenizer, args.out)
    corpus = encode_corpus(tokenizer, range(args.shards), args.shard_documents)
    prepared = time.perf_counter()
    print(f"{len(corpus.lengths):,} documents, {len(corpus.ids):,} tokens", flush=True)

    recipe = Recipe(steps=args.steps, batch_tokens=args.batch_tokens)
    model = build_model(tokenizer.get_vocab_size(), args.hidden, args.layers, recipe.seed)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    batches = Batches(corpus, args.batch_tokens, torch.device(args.device))
    speed = train(model.to(args.device), batches, recipe)
    save_model(model, args.out)
    trained = time.perf_counter()

    held_out = encode(tokenizer, _HELD_OUT_SEED, args.shard_documents // 5)
    evaluation = {
        "environment": _environment(args.device),
        "parameters": parameters,
        "corpus": {"documents": len(corpus.lengths), "tokens": len(corpus.ids)},
        "training": {
            "steps": args.steps,
            "batch_tokens": args.batch_tokens,
            "tokens_per_second": round(speed),
            "seconds_preparing": round(prepared - began, 1),
            "seconds_training": round(trained - prepared, 1),
        },
        **evaluate(args.out, held_out, args.device, args.evaluated_per_task),
    }
    _report(evaluation)
    if args.evaluation:
        args.evaluation.write_text(json.dumps(evaluation, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
