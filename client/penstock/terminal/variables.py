"""Variables of the environment that matter to a server: what each sets, and no secret of them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from penstock.terminal.finding import Finding

NAMES = re.compile(
    r"(HF|HUGGING|TGI|PENSTOCK|CUDA|NVIDIA|NCCL|TORCH|TRITON|AWS|OTEL)_\w+|LOG_LEVEL"
)
SECRET = re.compile(r"TOKEN|KEY|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
EXPLAIN = "penstock_launcher.explain"  # run as a program: nothing of it is imported here
SECONDS = 30.0  # for it to answer


def variables(environ: Mapping[str, str]) -> Iterator[Finding]:
    """A line for each that the launcher reads, and one for what libraries beside it read."""
    known = _explained(environ)
    for meaning in known:
        name = meaning["variable"]
        said = f"{shown(name, environ[name], secret=meaning['secret'])} {meaning['what']}"
        yield Finding(meaning["level"], "variable", without_password(said), meaning["advice"])
    others = sorted(set(environ) - {meaning["variable"] for meaning in known})
    told = [
        shown(name, environ[name], secret=bool(SECRET.search(name)))
        for name in others
        if NAMES.fullmatch(name)
    ]
    yield Finding("ok", "environment", ", ".join(told) or "nothing else that Penstock reads")


def shown(name: str, value: str, *, secret: bool) -> str:
    """NAME=value, where others may read it."""
    return f"{name}=(set, not shown)" if secret else f"{name}={without_password(value)}"


def without_password(text: str) -> str:
    """A URL may carry one."""
    return re.sub(r"//[^/@\s]*@", "//***@", text)


def _explained(environ: Mapping[str, str]) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", EXPLAIN]
    answer = subprocess.run(
        command, input=json.dumps(dict(environ)), capture_output=True, text=True, timeout=SECONDS
    )
    answer.check_returncode()
    return list(json.loads(answer.stdout))
