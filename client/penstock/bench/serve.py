"""`penstock bench serve`: loads a server that is up, and says how fast it is."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from penstock.bench.arrivals import Arrivals
from penstock.bench.compare import read_runs, regressions
from penstock.bench.gpu import GpuWatch
from penstock.bench.load import Interrupted, Load, Target, model_name, run_load
from penstock.bench.options import serve_parser
from penstock.bench.plot import NoMatplotlib, plot, pyplot
from penstock.bench.prompt_source import PromptSource
from penstock.bench.protocols import Asking, protocol_named
from penstock.bench.report import report
from penstock.bench.server import NoServer, flush_cache, server_url, wait_ready
from penstock.bench.tokenizer import load_tokenizer
from penstock.bench.vllm_result import vllm_result


@dataclass(frozen=True, slots=True)
class Run:
    """One of the runs that a command line asks for."""

    concurrency: int | None
    rate: float | None  # None: no arrivals, all that concurrency allows
    end_rate: float | None = None  # of a ramp

    @property
    def label(self) -> str:
        """What --compare knows it by."""
        parts = [f"rate {self.rate:g}"] if self.rate is not None else []
        parts += [f"to {self.end_rate:g}"] if self.end_rate is not None else []
        parts += [f"c{self.concurrency}"] if self.concurrency is not None else []
        return " ".join(parts) or "all at once"


def main(argv: Sequence[str], prog: str = "penstock bench serve", backend: str = "penstock") -> int:
    """The exit code: 1 where a request failed, something is missing, or --compare found worse."""
    parser = serve_parser(prog, backend)
    arguments = parser.parse_args(argv)
    try:
        return Serve(arguments).run()
    except BrokenPipeError:
        raise  # nobody reads the report: no sentence would be read either
    except (NoServer, NoMatplotlib, ValueError, OSError, RuntimeError) as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{prog}: interrupted", file=sys.stderr)
        return 130


class Serve:
    """All runs of a command line. Raises ValueError for options that do not go together."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.old = read_runs(arguments.compare) if arguments.compare else None
        self._check()
        ramp = (arguments.ramp_up_start_rps, arguments.ramp_up_end_rps)
        rates = [(rate, None) for rate in arguments.request_rate]
        self.runs = [
            Run(concurrency, *rate)
            for rate in ([ramp] if arguments.ramp_up_strategy else rates)
            for concurrency in arguments.max_concurrency
        ]
        self.protocol, self.path = protocol_named(arguments.backend, arguments.endpoint)
        self.tokenizer = load_tokenizer(arguments.tokenizer) if arguments.tokenizer else None
        self.seed = secrets.randbits(32) if arguments.seed is None else arguments.seed
        self.url = server_url(arguments.base_url, arguments.host, arguments.port)
        wait_ready(self.url, arguments.ready_check_timeout_sec)
        self.target = self._target()
        self.source = PromptSource(arguments, self.target, self.tokenizer, self.seed)

    def _check(self) -> None:
        given = self.arguments
        if given.plot is not None:
            pyplot()
        if given.dataset_name == "sharegpt" and given.dataset_path is None:
            raise ValueError("--dataset-name sharegpt needs --dataset-path")
        ramp = (given.ramp_up_strategy, given.ramp_up_start_rps, given.ramp_up_end_rps)
        if any(ramp) and (not all(ramp) or given.request_rate != [None]):
            raise ValueError(
                "a ramp needs --ramp-up-strategy, --ramp-up-start-rps and --ramp-up-end-rps, and "
                "no --request-rate"
            )
        runs = len(given.request_rate) * len(given.max_concurrency)
        if given.save_result and given.result_filename and runs > 1:
            raise ValueError("--result-filename is one file, and these are several runs: see --out")

    def _target(self) -> Target:
        given = self.arguments
        headers = dict(given.header)
        if given.api_key:
            headers.setdefault("Authorization", f"Bearer {given.api_key}")
        asking = Asking(
            model=given.served_model_name or given.model or self._model(headers),
            temperature=given.temperature,
            top_p=given.top_p,
            ignore_eos=given.ignore_eos,
            usage_in_chunks=given.count_tokens,
            extra=given.extra_body,
        )
        return Target(
            url=self.url,
            protocol=self.protocol,
            path=self.path,
            asking=asking,
            headers=headers,
            processes=given.processes,
            max_seconds=given.max_seconds,
        )

    def _model(self, headers: dict[str, str]) -> str:
        try:
            return model_name(self.url, headers)
        except OSError as error:
            if getattr(error, "code", None) in (401, 403):
                given = self.arguments.api_key is not None
                advice = "the server wants another key" if given else "give --api-key"
                raise NoServer(f"{self.url}/v1/models: {error}; {advice}") from None
            if self.protocol in ("generate_stream", "sglang"):
                return "unknown"  # these name no model in requests
            raise NoServer(f"{self.url}/v1/models: {error}; give --model") from None

    def run(self) -> int:
        """Everything; the exit code."""
        given = self.arguments
        print(
            f"{self.url} ({self.protocol}), model {self.target.asking.model}, seed {self.seed}",
            flush=True,
        )
        self._warm_up()
        results, measured = [], []
        interrupted = False
        for run in self.runs:
            figures, requests, interrupted = self._run(run)
            results.append(figures)
            measured.append(requests)
            print(report(figures, given.percentile_metrics.split(",")), flush=True)
            if interrupted:
                break
        self._write(results)
        if interrupted:
            raise KeyboardInterrupt
        if given.plot is not None:
            plot(given.plot, results, measured)
        worse = regressions(self.old, results, given.tolerance) if self.old is not None else []
        for sentence in worse:
            print(f"worse than {given.compare}: {sentence}", flush=True)
        return 1 if worse or any(each["failed"] for each in results) else 0

    def _run(self, run: Run) -> tuple[dict[str, Any], list[Any], bool]:
        """Figures, measurements, and whether Ctrl-C cut it."""
        given = self.arguments
        prompts = self.source.draw(given.num_prompts, run.label)
        load = Load(prompts=prompts, streams=run.concurrency or 0, arrivals=self._arrivals(run))
        if given.flush_cache:
            flush_cache(self.url, self.target.headers)
        bar = tqdm(total=len(prompts), desc=run.label, unit=" requests", disable=given.disable_tqdm)
        interrupted = False
        with bar, GpuWatch() as gpus:
            try:
                figures, requests = run_load(
                    self.target,
                    load,
                    seed=self.seed,
                    objectives=dict(given.goodput) if given.goodput else None,
                    points=given.metric_percentiles,
                    progress=lambda ended: bar.update(ended - bar.n),
                )
            except Interrupted as cut:
                figures, requests, interrupted = cut.figures, cut.requests, True
        settings = {
            "label": run.label,
            "dataset": given.dataset_name,
            "max_concurrency": run.concurrency,
            "request_rate": run.rate,
            "end_rate": run.end_rate,
            "burstiness": given.burstiness,
            "counts_along": given.count_tokens or self.protocol == "sglang",
        }
        read = {"gpus": gpus.figures, "gpus_unread": gpus.unread}
        return settings | figures | read, requests, interrupted

    def _arrivals(self, run: Run) -> Arrivals | None:
        if run.rate is None:
            return None
        return Arrivals(
            rate=run.rate,
            end_rate=run.end_rate,
            exponential=self.arguments.ramp_up_strategy == "exponential",
            burstiness=self.arguments.burstiness,
        )

    def _warm_up(self) -> None:
        if count := self.arguments.num_warmups:
            prompts = [
                replace(p, output=min(p.output, 32)) for p in self.source.draw(count, "warm-up")
            ]
            figures, _ = run_load(replace(self.target, processes=1), Load(prompts=prompts))
            if not figures["completed"]:
                reason = next(iter(figures["failures"]), "it was cut")
                raise NoServer(f"the first request failed: {reason}")

    def _write(self, results: list[dict[str, Any]]) -> None:
        given = self.arguments
        facts = {
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "version": importlib.metadata.version("penstock"),
            "url": self.url,
            "backend": given.backend,
            "model": self.target.asking.model,
            "tokenizer": given.tokenizer,
            "seed": self.seed,
            "arguments": shown(given),
        }
        if given.out is not None:
            _write_json(given.out, facts | {"runs": results})
        if given.save_result:
            for run in results:
                stamp = facts["date"].replace(":", "").replace("+0000", "Z")
                name = given.result_filename or f"{given.backend}-{run['label']}-{stamp}.json"
                _write_json(given.result_dir / name.replace(" ", "-"), vllm_result(run, facts))


def shown(arguments: argparse.Namespace) -> dict[str, Any]:
    """What a result says of its command line: no secrets."""
    secret = {"api_key": "***" if arguments.api_key else None}
    secret |= {"header": [name for name, _ in arguments.header]}  # type: ignore[dict-item]
    values = vars(arguments) | secret
    return {name: value if _is_json(value) else str(value) for name, value in values.items()}


def _is_json(value: object) -> bool:
    return value is None or isinstance(value, int | float | str | list | dict)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
