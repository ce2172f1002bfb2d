"""guidellm: a short benchmark of each kind of request, by its own command line.

It needs torch, which is the project's own: TORCH_FROM is the folder that holds it. MODEL is the
folder with the tokenizer of the model that is served.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.append(os.environ["TORCH_FROM"])  # here, because its workers import this module too

from verdict import URL, verdict

REQUESTS = 3
OUTPUT_TOKENS = 8


def benchmark(request_format: str) -> None:
    """Run it, and look whether each request had what was asked for."""
    from guidellm.cli import cli

    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        arguments = {
            "backend": f"kind=openai_http,target={URL},request_format={request_format}",
            "profile": "kind=concurrent,streams=2",
            "constraint": f"kind=max_requests,count={REQUESTS}",
            "tokenizer": f"kind=huggingface_auto,model={os.environ['MODEL']}",
            "data": f"kind=synthetic_text,prompt_tokens=16,output_tokens={OUTPUT_TOKENS}",
            "output": f"kind=json,path={report}",
        }
        words = [word for name, value in arguments.items() for word in (f"--{name}", value)]
        cli(["run", *words, "--disable-console"], standalone_mode=False)
        (result,) = json.loads(report.read_text())["benchmarks"]
    requests = result["requests"]
    assert not requests["errored"], requests["errored"][0]
    assert len(requests["successful"]) == REQUESTS, requests
    for request in requests["successful"]:
        assert request["output_metrics"]["text_tokens"] == OUTPUT_TOKENS, request


def completes() -> None:
    benchmark("/v1/completions")


def chats() -> None:
    benchmark("/v1/chat/completions")


if __name__ == "__main__":
    verdict("guidellm", completes, chats)
