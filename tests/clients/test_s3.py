"""Models of buckets, by the real boto3 from a real S3 server (moto's) on 127.0.0.1.

Both are installed in an environment of their own, so these tests are marked `clients`.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from tests.clients.environments import Unavailable, interpreter

import penstock_launcher
from penstock_launcher.model import DEMO, S3Model
from support.server import running_server

pytestmark = [pytest.mark.clients, pytest.mark.timeout(600)]
LAUNCHER = Path(penstock_launcher.__file__).parents[1]
KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "very-secret-key"}
WEIGHTS = bytes(range(256)) * (5 << 12)  # 5 MiB
FILES = {
    "config.json": b"{}",
    "tokenizer.json": b'{"a": 1}',
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"pickle",
    "modeling_evil.py": b"raise SystemExit",
    ".hidden.json": b"{}",
    "sub/other.json": b"{}",
    "": b"",
}
FILL = """
import json, sys, boto3
client = boto3.client("s3")
bucket, *pairs = json.load(sys.stdin)
client.create_bucket(Bucket=bucket)
for key, path in pairs:
    client.upload_file(path, bucket, key)  # beyond 8 MiB in parts, as aws s3 cp does
"""

Download = Callable[..., tuple[dict[str, str], list[dict[str, Any]]]]


@pytest.fixture(scope="module")
def python() -> Path:
    try:
        return interpreter("s3")
    except Unavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def environment(python: Path) -> Iterator[dict[str, str]]:
    """Where an S3 server listens, as boto3 is told."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [python, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    clean = {n: v for n, v in os.environ.items() if not n.startswith(("AWS_", "HF_"))}
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        endpoint = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_REGION": "us-east-1"}
        yield clean | KEYS | endpoint | {"AWS_DEFAULT_REGION": "us-east-1"}
    finally:
        server.terminate()
        server.wait(10)


@pytest.fixture
def fill(python: Path, environment: dict[str, str], tmp_path: Path) -> Callable[..., None]:
    """Puts files into a new bucket."""

    def run(bucket: str, prefix: str, files: dict[str, bytes | Path]) -> None:
        pairs = []
        for place, (name, content) in enumerate(files.items()):
            if isinstance(content, bytes):
                path = tmp_path / f"object{place}"
                path.write_bytes(content)
                content = path
            pairs.append((prefix + name, str(content)))
        given = json.dumps([bucket, *pairs])
        subprocess.run([python, "-c", FILL], input=given, text=True, env=environment, check=True)

    return run


@pytest.fixture
def download(python: Path, environment: dict[str, str], tmp_path: Path) -> Download:
    """Runs the launcher's program as the launcher does."""

    def run(url: str, **changes: str) -> tuple[dict[str, str], list[dict[str, Any]]]:
        wanted = S3Model.parse(url, str(tmp_path / "cache"), with_weights=True)
        read_fd, write_fd = os.pipe()
        with os.fdopen(read_fd) as ready:
            result = subprocess.run(
                [python, "-m", "penstock_launcher.s3_download"],
                input=json.dumps(asdict(wanted)),
                env=environment
                | {"PYTHONPATH": str(LAUNCHER), "PENSTOCK_READY_FD": str(write_fd)}
                | changes,
                pass_fds=(write_fd,),
                capture_output=True,
                text=True,
                timeout=120,
            )
            os.close(write_fd)
            answer = json.loads(ready.read() or "{}")
        assert (result.returncode, "Traceback" in result.stderr) == (0, False), result.stderr
        lines = [line for line in result.stderr.splitlines() if line.startswith("{")]
        return answer, [json.loads(line) for line in lines]

    return run


def test_takes_what_is_needed_and_keeps_it(
    download: Download, fill: Callable[..., None], tmp_path: Path
) -> None:
    fill("one", "models/a/", FILES)
    answer, records = download("s3://one/models/a")
    folder = Path(answer["path"])
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["config.json", "model.safetensors", "tokenizer.json"]
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert folder.parent.name == "snapshots" and folder.name == answer["sha"]
    assert all(path.is_symlink() for path in folder.iterdir())
    progress = [record["progress"]["done"] for record in records if "progress" in record]
    total = sum((folder / name).stat().st_size for name in names)
    assert progress[-1] == total and progress == sorted(progress)
    before = {path: path.stat().st_mtime_ns for path in folder.resolve().rglob("*")}
    again, _ = download("s3://one/models/a/")
    assert again["path"] != answer["path"] or before == {
        path: path.stat().st_mtime_ns for path in folder.resolve().rglob("*")
    }
    assert not list((tmp_path / "cache").rglob("*.incomplete"))


def test_goes_on_behind_what_has_come(
    download: Download, fill: Callable[..., None], tmp_path: Path
) -> None:
    fill("two", "m/", FILES)
    answer, _ = download("s3://two/m")
    blob = (Path(answer["path"]) / "model.safetensors").resolve()
    half = blob.with_name(f"{blob.name}.incomplete")
    blob.unlink()
    half.write_bytes(WEIGHTS[: 3 << 20])
    answer, records = download("s3://two/m")
    assert blob.read_bytes() == WEIGHTS and not half.exists()
    first = next(r["progress"]["done"] for r in records if "progress" in r)
    assert first <= 3 << 20 or first > len(WEIGHTS)  # what was there counts from the start
    blob.unlink()
    half.write_bytes(b"x" * (3 << 20))  # what has come is not what the bucket has
    answer, _ = download("s3://two/m")
    assert "its MD5 is not what the bucket says" in answer["error"]
    answer, _ = download("s3://two/m")  # nothing of it is left
    assert (Path(answer["path"]) / "model.safetensors").read_bytes() == WEIGHTS


def test_an_object_that_changed_is_fetched_again(
    download: Download, fill: Callable[..., None]
) -> None:
    fill("three", "", {"config.json": b"{}", "a.safetensors": b"1" * 100})
    old, _ = download("s3://three")
    fill("three", "", {"a.safetensors": b"2" * 100})
    new, _ = download("s3://three")
    assert old["sha"] != new["sha"]
    assert (Path(new["path"]) / "a.safetensors").read_bytes() == b"2" * 100
    assert (Path(old["path"]) / "a.safetensors").read_bytes() == b"1" * 100


def test_errors_are_sentences(download: Download, fill: Callable[..., None]) -> None:
    fill("four", "empty/", {"config.json": b"{}"})
    fill("five", "pickled/", {"config.json": b"{}", "pytorch_model.bin": b"x"})
    assert "no such bucket" in download("s3://no-such-bucket/x")[0]["error"]
    assert "holds no files" in download("s3://four/nothing")[0]["error"]
    assert "holds no .safetensors" in download("s3://four/empty")[0]["error"]
    assert "pickled weights" in download("s3://five/pickled")[0]["error"]
    away = "http://127.0.0.1:9"
    assert "could not be fetched" in download("s3://four/x", AWS_ENDPOINT_URL=away)[0]["error"]
    none = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_EC2_METADATA_DISABLED": "1"}
    assert "there are no credentials" in download("s3://four/x", HOME="/none", **none)[0]["error"]


def test_a_bucket_that_is_away_is_served_from_the_cache(
    download: Download, fill: Callable[..., None]
) -> None:
    fill("six", "m/", {"config.json": b"{}", "a.safetensors": b"1"})
    answer, _ = download("s3://six/m")
    kept, records = download("s3://six/m", AWS_ENDPOINT_URL="http://127.0.0.1:9")
    assert kept == answer
    assert any("from the cache" in record["message"] for record in records)


def test_the_launcher_serves_from_a_bucket(
    python: Path, environment: dict[str, str], fill: Callable[..., None], tmp_path: Path
) -> None:
    fill("seven", "demo/", {path.name: path for path in DEMO.iterdir() if path.is_file()})
    packages = next((python.parents[1] / "lib").glob("python3*/site-packages"))
    variables = environment | {"PYTHONPATH": str(packages)}  # boto3, for our own interpreter
    options = ["--model-id", "s3://seven/demo", "--device", "cpu"]
    options += ["--huggingface-hub-cache", str(tmp_path / "cache")]
    with running_server(tmp_path / "run", *options, env=variables) as server:
        with urllib.request.urlopen(f"{server.url}/info") as said:
            assert json.load(said)["model_id"] == "s3://seven/demo"
        for child in [*server.children("shard"), *server.children("router")]:
            assert not set(child.environ()) & KEYS.keys()
        assert KEYS["AWS_SECRET_ACCESS_KEY"] not in server.log
