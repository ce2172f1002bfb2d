"""`penstock doctor`: what a bug report needs, and what this machine lacks, with what to do."""

from __future__ import annotations

import json
import os
import platform
import re
import resource
import shutil
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from penstock.terminal.finding import Finding
from penstock.terminal.gpus import gpus
from penstock.terminal.variables import variables, without_password
from penstock_proto.config_file import Parser

PACKAGES = (
    "penstock", "torch", "triton", "safetensors", "transformers", "tokenizers", "llguidance",
    "grpcio", "protobuf", "aiohttp", "uvloop", "huggingface_hub",
)  # fmt: skip
GIB = 2**30
SECONDS = 5.0  # for the hub to answer
FEW_FILES = 4096  # descriptors; a connection takes one


def main(argv: Sequence[str]) -> int:
    """The exit code: 1 where something keeps Penstock from serving."""
    parser = Parser(prog="penstock doctor", description=__doc__.partition(": ")[2])
    parser.add_argument("--port", type=int, help="that the server shall have; PORT, or 3000")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--offline", action="store_true", help="do not ask the hub")
    given = parser.parse_args(argv)
    port = given.port if given.port is not None else _port_of(os.environ)
    findings = list(examine(port, os.environ, ask_hub=not given.offline))
    if given.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        print("\n".join(map(line, findings)))
    return int(any(finding.level == "failure" for finding in findings))


def _port_of(environ: Mapping[str, str]) -> int:
    """That a launcher would take."""
    port = environ.get("PORT", "")
    return int(port) if re.fullmatch(r"[0-9]{1,5}", port) and int(port) < 2**16 else 3000


def line(finding: Finding) -> str:
    """As a person reads it."""
    mark = {"ok": "  ", "warning": "! ", "failure": "✗ "}[finding.level]
    advice = f"\n{'':<18}→ {finding.advice}" if finding.advice else ""
    return f"{mark}{finding.subject:<16}{finding.what}{advice}"


def examine(port: int, environ: Mapping[str, str], *, ask_hub: bool) -> Iterator[Finding]:
    """Everything, in the order in which it matters to a start."""
    yield Finding("ok", "system", f"{platform.platform()}, {os.cpu_count()} cores")
    yield _python()
    yield _packages()
    yield from gpus()
    yield _memory()
    yield _shared_memory()
    yield _port(port)
    yield _files()
    yield _cache(environ)
    if ask_hub:
        yield _hub(environ)
    yield from variables(environ)


def _python() -> Finding:
    what = f"{platform.python_version()} at {sys.executable}"
    return Finding("ok", "python", what)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _packages() -> Finding:
    found = {name: _version(name) for name in PACKAGES}
    what = ", ".join(f"{name} {number}" for name, number in found.items() if number)
    if found["torch"] is None:
        return Finding(
            "warning",
            "packages",
            f"{what}; no torch",
            "enough for clients, the language and bench; to serve: pip install 'penstock[all]'",
        )
    return Finding("ok", "packages", what)


def _memory() -> Finding:
    sizes = dict(re.findall(r"^(\w+):\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE))
    total, free = (int(sizes[name]) * 1024 / GIB for name in ("MemTotal", "MemAvailable"))
    what = f"{free:.1f} of {total:.1f} GiB available"
    if free > 2:
        return Finding("ok", "memory", what)
    return Finding("warning", "memory", what, "a server needs some 2 GiB beside the weights")


def _shared_memory() -> Finding:
    total = shutil.disk_usage("/dev/shm").total
    what = f"{total / GIB:.2f} GiB of /dev/shm"
    if total >= GIB:
        return Finding("ok", "shared memory", what)
    advice = "several shards need more: docker run --shm-size 1g, or an emptyDir of memory"
    return Finding("warning", "shared memory", what, advice)


def _port(port: int) -> Finding:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except OSError as error:
            what = f"{port} cannot be had: {error.strerror}"
            return Finding("warning", "port", what, "a server runs there already; or take --port")
    return Finding("ok", "port", f"{port} is free")


def _files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    what = f"{soft} descriptors a process, at most {hard}"
    if soft >= FEW_FILES or hard == resource.RLIM_INFINITY:
        return Finding("ok", "open files", what)
    if hard >= FEW_FILES:
        return Finding("ok", "open files", what)
    return Finding("warning", "open files", what, "raise `ulimit -n`: a connection takes one")


def _cache(environ: Mapping[str, str]) -> Finding:
    home = environ.get("HF_HOME") or Path(
        environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface"
    )
    folder = Path(environ.get("HF_HUB_CACHE") or Path(home, "hub")).expanduser()
    nearest = next(one for one in (folder, *folder.parents) if one.exists())
    free = shutil.disk_usage(nearest).free / GIB
    what = f"{folder}, {free:.0f} GiB free"
    if not os.access(nearest, os.W_OK):
        return Finding("warning", "model cache", f"{what}, not writable", "set HF_HOME elsewhere")
    if free < 20:
        return Finding("warning", "model cache", what, "8B in bfloat16 takes 16 GiB: set HF_HOME")
    return Finding("ok", "model cache", what)


def _hub(environ: Mapping[str, str]) -> Finding:
    if environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return Finding("ok", "hub", "not asked: HF_HUB_OFFLINE is set")
    url = environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        request = urllib.request.Request(url, method="HEAD")
        url = without_password(url)
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            return Finding("ok", "hub", f"{url} answers {answer.status}")
    except urllib.error.HTTPError as error:
        return Finding("ok", "hub", f"{url} answers {error.code}")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        advice = "models of the hub cannot be fetched: check proxy and DNS, or give a folder"
        return Finding("warning", "hub", f"{url} cannot be reached: {reason}", advice)
