"""`penstock quantize`: what it writes is served and means nearly what was there."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from penstock_kernels.ops import Activation
from penstock_kernels.weight import Weight
from penstock_quantization.offline.awq import Reader, best_scale, cut
from penstock_quantization.offline.gptq import gptq
from penstock_quantization.offline.groups import Grid
from penstock_quantization.offline.store import FORMATS
from penstock_shard.model.layers import FeedForward
from penstock_shard.weights.calibration import Calibration
from penstock_shard.weights.quantize import main, read_sequences
from penstock_shard.weights.rewrite import UNFINISHED
from support.checkpoints import make_checkpoint
from support.joined_ranks import joined_ranks
from support.local_shard import LocalShard, load_model
from support.sampled import crossed

PROMPT = list(range(3, 30))
LOSSES = {"fp8": 0.04, "int8": 0.02, "nvfp4": 0.13, "mxfp4": 0.16, "gptq": 0.3, "awq": 0.3}


def tokens(shard: LocalShard) -> list[int]:
    return [shard.start(0, PROMPT), *shard.decode([0], 8)[0]]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("The river turns the valve; water runs through steel pipes. " * 60)
    return path


def options(folder: Path, output: Path, name: str, text: Path) -> list[str]:
    where = ["--model-id", str(folder), "--output", str(output), "--format", name]
    calibrating = [
        *("--calibration", str(text), "--group-size", "16"), *("--samples", "4", "--length", "48")
    ]  # fmt: skip
    return [*where, "--device", "cpu", *(calibrating if FORMATS[name].store else [])]


@pytest.mark.parametrize("name", list(FORMATS))
@pytest.mark.parametrize("family", ["llama3", pytest.param("phi3", marks=pytest.mark.full)])
def test_what_is_written_is_served(tmp_path: Path, text: Path, family: str, name: str) -> None:
    """By one rank and by two, to the same tokens; and matrices are near those that were there."""
    folder = make_checkpoint(tmp_path / "model", family)
    output = tmp_path / "quantised"
    assert main(options(folder, output, name, text)) == 0
    assert (output / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
    loaded, dense = load_model(output), load_model(folder)
    assert loaded.model.scheme is not None
    if name != "awq":  # scales of inputs are moved to norms
        for ours, theirs in zip(loaded.decoder.blocks, dense.decoder.blocks, strict=True):
            for found, meant in (
                (ours.attention.qkv, theirs.attention.qkv),
                (ours.mlp.down.weight, theirs.mlp.down.weight),
            ):
                lost = float((found.data - meant.data).norm() / meant.data.norm())
                assert 0 < lost < LOSSES[name]
    assert joined_ranks(output, 2, tokens) == tokens(LocalShard(loaded))


@pytest.mark.parametrize("family", ["gemma2", "falcon_new"])
def test_other_families_by_gptq(tmp_path: Path, text: Path, family: str) -> None:
    """Norms on both sides; queries, keys and values in one tensor, group by group."""
    folder, output = make_checkpoint(tmp_path / "model", family), tmp_path / "quantised"
    assert main(options(folder, output, "gptq", text)) == 0
    found, meant = (load_model(path).decoder.blocks[1].attention.qkv for path in (output, folder))
    assert 0 < float((found.data - meant.data).norm() / meant.data.norm()) < LOSSES["gptq"]


def test_files_stay_apart(tmp_path: Path) -> None:
    """A checkpoint of several files becomes one of as many, with an index."""
    folder, output = make_checkpoint(tmp_path / "model", "llama2"), tmp_path / "quantised"
    model = load_file(folder / "model.safetensors")
    from safetensors.torch import save_file

    names = sorted(model)
    (folder / "model.safetensors").unlink()
    parts = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, held in parts.items():
        save_file({name: model[name] for name in held}, folder / file, {"format": "pt"})
    weights = {name: file for file, held in parts.items() for name in held}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))
    arguments = ["--model-id", str(folder), "--output", str(output), "--format", "int8"]
    assert main([*arguments, "--device", "cpu"]) == 0
    index = json.loads((output / "model.safetensors.index.json").read_text())["weight_map"]
    assert set(index.values()) == set(parts)
    for name, file in index.items():
        assert name in load_file(output / file)
    load_model(output)


def test_calibration_loses_less_than_rounding() -> None:
    """Over inputs that go together: GPTQ and AWQ against the nearest numbers."""
    torch.manual_seed(0)
    x = torch.randn(2000, 24) @ torch.randn(24, 128) + torch.randn(2000, 128)
    x *= torch.linspace(0.1, 4, 128)[torch.randperm(128)]
    weight, hessian = torch.randn(64, 128), x.T @ x
    grid = Grid(4, 32, True)

    def lost(matrix: torch.Tensor) -> float:
        return float(((matrix - weight) @ x.T).norm() / (weight @ x.T).norm())

    nearest = lost(grid.nearest(weight).meant())
    assert lost(gptq(weight, hessian, grid).meant()) < 0.5 * nearest
    scale = best_scale([Reader(weight, hessian)], x.abs().mean(0), grid)
    scaled = cut(weight * scale, hessian / (scale[:, None] * scale), grid).meant() / scale
    assert lost(scaled) < 0.95 * nearest


KILLED_WHILE_WRITING = """
import os, shutil, signal, sys
from penstock_shard.model.layers import FeedForward
from penstock_shard.weights.calibration import Calibration
from penstock_shard.weights.quantize import main, read_sequences
shutil.copyfile = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # behind the weights
main(sys.argv[1:])
"""


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


REFUSED = [
    (["--format", "gptq"], "needs --calibration FILE"),
    (["--format", "fp8", "--samples", "3"], "is for gptq and awq, not for fp8"),
    (["--format", "int8", "--calibration", "x"], "--calibration is for gptq and awq"),
    (["--format", "gptq", "--group-size", "24"], "--group-size 24 does not divide hidden_size 64"),
    (["--format", "awq", "--bits", "8"], "--bits 8 is none of awq: 4"),
    (["--format", "gptq", "--calibration", "/none", "--group-size", "16"], "/none is no file"),
]


def test_an_interrupt_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("penstock_shard.weights.quantize.quantize", interrupted)
    assert main(["--model-id", "x", "--output", str(tmp_path), "--format", "fp8"]) == 130
    assert capsys.readouterr().err == "penstock quantize: interrupted\n"


def test_a_disk_that_is_full_is_no_traceback(
    checkpoint: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The library that writes has an error of its own for it."""
    output = tmp_path / "made"
    argv = ["--model-id", str(checkpoint("llama2")), "--output", str(output), "--format", "fp8"]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        code = main(argv)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    said = capsys.readouterr().err
    assert code == 1 and "model.safetensors cannot be written: " in said and "Traceback" not in said
    assert not output.exists()


def test_a_file_that_is_cut_off_is_no_traceback(
    own_checkpoint: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, output = own_checkpoint(), tmp_path / "made"
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert main(["--model-id", str(folder), "--output", str(output), "--format", "fp8"]) == 1
    assert "model.safetensors is cut off: it has" in capsys.readouterr().err
    assert not output.exists()


def test_a_model_is_there_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind an error nothing is left, behind a kill what the next run removes."""
    folder, output = make_checkpoint(tmp_path / "model", "llama2"), tmp_path / "out"
    arguments = ["--model-id", str(folder), "--output", str(output)]
    arguments += ["--format", "int8", "--device", "cpu"]
    command = [sys.executable, "-c", KILLED_WHILE_WRITING, *arguments]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    assert os.listdir(output) == [UNFINISHED]
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfile", full_disk)
        assert main(arguments) == 1
        assert os.listdir(output) == []  # it was there before
        output.rmdir()
        assert main(arguments) == 1
        assert not output.exists()
    output.mkdir()
    assert main(arguments) == 0
    assert UNFINISHED not in os.listdir(output)
    load_model(output)


@pytest.mark.parametrize(("more", "message"), REFUSED)
def test_what_cannot_be_is_said(
    tmp_path: Path, more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_checkpoint(tmp_path / "model", "llama2")
    output = ["--output", str(tmp_path / "out"), "--device", "cpu"]
    more = more if "--group-size" in more else [*more, "--group-size", "16"]
    assert main(["--model-id", str(folder), *output, *more]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_quantised_checkpoint_is_not_quantised_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, output = make_checkpoint(tmp_path / "model", "llama2"), tmp_path / "out"
    arguments = ["--format", "fp8", "--device", "cpu"]
    assert main(["--model-id", str(folder), "--output", str(output), *arguments]) == 0
    again = ["--model-id", str(output), "--output", str(tmp_path / "again"), *arguments]
    assert main(again) == 1
    assert "is quantised already (compressed-tensors)" in capsys.readouterr().err
    assert main(["--model-id", str(folder), "--output", str(output), *arguments]) == 1
    assert "is not empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("family", "name"),
    [("qwen2_moe", "fp8"), ("mixtral", "int8"), ("olmoe", "mxfp4"), ("mixtral", "gptq")],
)
def test_experts(tmp_path: Path, text: Path, family: str, name: str) -> None:
    """Theirs are quantised, those by which rows choose are not, and the configuration says so."""
    folder = make_checkpoint(tmp_path / "model", family, num_hidden_layers=2)
    output = tmp_path / "quantised"
    assert main(options(folder, output, name, text)) == 0
    loaded, dense = load_model(output), load_model(folder)
    ours, theirs = (one.decoder.blocks[-1].mlp for one in (loaded, dense))
    for part in ("up", "down"):
        found, meant = (getattr(mlp.experts, part).parts.data for mlp in (ours, theirs))
        assert 0 < float((found - meant).norm() / meant.norm()) < LOSSES[name]
    assert torch.equal(ours.router.data, theirs.router.data)
    stored = load_file(output / "model.safetensors")
    gates = [key.removesuffix(".weight") for key in stored if key.endswith("gate.weight")]
    said = json.loads((output / "config.json").read_text())["quantization_config"]
    skipped = said["ignore"] if "ignore" in said else said["modules_to_not_convert"]
    assert sorted(skipped) == sorted([*gates, "lm_head"])
    assert loaded.model.scheme is not None
    assert all(loaded.model.scheme.skips(gate) for gate in gates)
    assert joined_ranks(output, 2, tokens) == tokens(LocalShard(loaded))


@pytest.mark.parametrize(
    ("family", "name"),
    crossed(
        ["mixtral", "qwen2_moe"],
        ["gptq", "awq"],
        sample=lambda family, name: (family == "mixtral") == (name == "gptq"),
    ),
)
def test_experts_are_calibrated(
    tmp_path: Path, family: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each by the rows that take it: less is lost than by rounding. Of a text so short that no
    expert has enough of them, all are rounded, which is said."""
    folder = make_checkpoint(tmp_path / "model", family, num_hidden_layers=2)
    text = tmp_path / "text.txt"
    text.write_text(" ".join(f"{i * i % 97} of {i * 7 % 31}" for i in range(900)))
    lost, said = [], []
    for tokens_of_each in (8, 96):
        output = tmp_path / f"by_{tokens_of_each}"
        arguments = options(folder, output, name, text)
        arguments[arguments.index("--length") + 1] = str(tokens_of_each)
        arguments[arguments.index("--group-size") + 1] = "32"
        assert main(arguments) == 0
        lost.append(lost_in_experts(folder, output, text))
        said.append(capsys.readouterr().out)
    assert "matrices are of experts that fewer than 32 tokens of the text took" in said[0]
    assert lost[1] < {"gptq": 0.6, "awq": 0.9}[name] * lost[0]
    assert joined_ranks(output, 2, tokens) == tokens(LocalShard(load_model(output)))


def lost_in_experts(folder: Path, output: Path, text: Path) -> float:
    """How far what the last layer's MLP makes of the text's rows is from what it made before, each
    behind its own norm."""
    sequences = read_sequences(text, folder / "tokenizer.json", 4, 96)
    ours, theirs = (load_model(path).decoder for path in (output, folder))
    calibration = Calibration(theirs, sequences)
    kept = Kept(theirs.blocks[-1].mlp)
    theirs.blocks[-1].mlp = kept
    for _ in calibration.blocks():
        pass
    step = calibration._step(len(sequences))
    more = ours.blocks[-1].mlp_norm.weight / theirs.blocks[-1].mlp_norm.weight
    [x] = kept.rows
    meant, found = kept.mlp(Activation(x), step), ours.blocks[-1].mlp(Activation(x * more), step)
    return float((found - meant).norm() / meant.norm())


class Kept:
    """An MLP that keeps what it was given."""

    def __init__(self, mlp: FeedForward) -> None:
        self.mlp, self.rows = mlp, []

    @property
    def reads(self) -> Weight:
        return self.mlp.reads

    def add_norm(self, x: Activation, *rest: Any) -> Activation:
        self.rows.append(x.x)
        return self.mlp.add_norm(x, *rest)


def test_families_that_no_format_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_checkpoint(tmp_path / "model", "gpt2")
    output = ["--output", str(tmp_path / "out"), "--device", "cpu", "--format", "int8"]
    assert main(["--model-id", str(folder), *output]) == 1
    assert "stores matrices [inputs, outputs]" in capsys.readouterr().err
