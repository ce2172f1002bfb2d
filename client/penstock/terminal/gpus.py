"""The GPUs of this machine: whether their driver answers, and whether torch can use them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator

from penstock.terminal.finding import Finding

FIELDS = "name,driver_version,memory.used,memory.total"
SECONDS = 5.0  # for the driver to answer
TORCH_SECONDS = 120.0  # to be read from a disk, and to begin with a GPU
# A process of its own: nothing here imports torch, and a GPU that it has begun with is taken.
TORCH = """
import json, torch
said = ""
try:
    torch.cuda.init()
except Exception as error:
    said = str(error).partition("\\n")[0]
built = {"cuda": torch.version.cuda, "hip": torch.version.hip}
count = 0 if said else torch.cuda.device_count()
print(json.dumps({**built, "count": count, "said": said}))
"""


def gpus() -> Iterator[Finding]:
    """The driver's view; and torch's, where there are GPUs and torch."""
    if shutil.which("nvidia-smi") is None:
        what = "none: nvidia-smi is not there"
        advice = "models run on the CPU; in a container, start it with --gpus all"
        yield Finding("warning", "GPU", what, advice)
        return
    query = ["nvidia-smi", f"--query-gpu={FIELDS}", "--format=csv,noheader,nounits"]
    try:
        output = subprocess.run(query, capture_output=True, text=True, timeout=SECONDS, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stdout", "") or "").strip() or str(error)
        yield Finding("failure", "GPU", said, "the driver does not answer: see dmesg, or reboot")
        return
    for number, row in enumerate(output.stdout.splitlines()):
        name, driver, used, total = (part.strip() for part in row.split(","))
        what = f"{name}, driver {driver}, {used} of {total} MiB used"
        full = used.isdigit() and total.isdigit() and int(used) > 0.1 * int(total)
        advice = "something else holds memory: end it, or lower --cuda-memory-fraction"
        level = "warning" if full else "ok"
        yield Finding(level, f"GPU {number}", what, advice if full else "")
    yield from torch_view()


def torch_view() -> Iterator[Finding]:
    """A driver may be older than torch needs, and torch may be the one for CPUs."""
    try:
        answer = subprocess.run(
            [sys.executable, "-c", TORCH], capture_output=True, text=True, timeout=TORCH_SECONDS
        )
        told = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return  # it is not installed, which stands among the packages
    if told["cuda"] is None and told["hip"] is None:
        advice = "install torch for CUDA (https://pytorch.org/get-started)"
        yield Finding("failure", "torch and GPU", "torch is built for CPUs alone", advice)
    elif told["count"] == 0:
        built = f"torch for CUDA {told['cuda']} finds none: {told['said'] or 'CUDA shows none'}"
        advice = "a driver for that CUDA, torch for an older one, or CUDA_VISIBLE_DEVICES"
        yield Finding("failure", "torch and GPU", built, advice)
    else:
        what = f"torch for CUDA {told['cuda']} finds {told['count']}"
        yield Finding("ok", "torch and GPU", what)
