"""Models of buckets, as far as no S3 server is needed; tests/clients/test_s3.py has a real one."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from pathlib import Path

import pytest

from penstock_launcher import s3_download
from penstock_launcher.configs import Plan, s3_program, shard_environment
from penstock_launcher.errors import LauncherError
from penstock_launcher.folder import check_entries
from penstock_launcher.model import S3Model, local_model
from penstock_launcher.options import Options
from penstock_launcher.s3_cache import Cache, Damaged, SavedObject

DATA = b"weights" * 1000


def saved(data: bytes = DATA, name: str = "model.safetensors", etag: str = "") -> SavedObject:
    tag = etag or hashlib.md5(data).hexdigest()
    return SavedObject(name, f"m/{name}", tag, len(data))


def store(cache: Cache, wanted: SavedObject, data: bytes = DATA) -> None:
    with cache.part(wanted) as part:
        assert part is not None
        part.write(data[part.size :])
        part.check()


@pytest.mark.parametrize(
    ("url", "bucket", "prefix"),
    [
        ("s3://models", "models", ""),
        ("s3://models/", "models", ""),
        ("s3://my.models-1/a/B c/d", "my.models-1", "a/B c/d"),
        ("s3://models/llama/", "models", "llama"),
    ],
)
def test_urls(url: str, bucket: str, prefix: str) -> None:
    model = S3Model.parse(url, None, True)
    assert (model.bucket, model.prefix) == (bucket, prefix)
    assert local_model(Options(model_id=url)) is None


@pytest.mark.parametrize("url", ["s3://", "s3://A/x", "s3://ab/x//y", "s3://-ab/x", "s3://abc/x\n"])
def test_urls_that_name_nothing(url: str) -> None:
    with pytest.raises(LauncherError, match="expected s3://BUCKET/PREFIX"):
        S3Model.parse(url, None, True)


def test_a_bucket_has_no_revisions() -> None:
    with pytest.raises(LauncherError, match="--revision is of the hub"):
        local_model(Options(model_id="s3://models/x", revision="main"))


@pytest.mark.skipif(importlib.util.find_spec("boto3") is not None, reason="boto3 is installed")
def test_without_boto3_it_says_what_to_install() -> None:
    with pytest.raises(LauncherError, match=r"pip install 'penstock\[s3\]'"):
        s3_download.connect()


def test_only_the_download_has_the_keys() -> None:
    environ = {"AWS_SECRET_ACCESS_KEY": "k", "AWS_ENDPOINT_URL": "http://x", "HF_TOKEN": "t"}
    model = S3Model.parse("s3://models/x", None, True)
    assert dict(s3_program(model, environ).environment) == {
        "AWS_SECRET_ACCESS_KEY": "k",
        "AWS_ENDPOINT_URL": "http://x",
    }
    assert "AWS_SECRET_ACCESS_KEY" not in shard_environment(Plan(Options(), 1, 1, environ), 0)


def test_a_snapshot_is_whole_and_a_model_folder(tmp_path: Path) -> None:
    cache = Cache.of("s3://models/a b", str(tmp_path))
    assert cache.latest() is None
    files = [saved(), saved(b"{}", "config.json")]
    store(cache, files[0])
    store(cache, files[1], b"{}")
    folder = cache.publish(files)
    check_entries(folder)
    assert (folder / "model.safetensors").read_bytes() == DATA
    assert cache.latest() == folder == cache.publish(files[::-1])
    with cache.part(files[0]) as part:
        assert part is None  # there is nothing to fetch
    assert not list(tmp_path.rglob("*.incomplete"))
    (folder / "config.json").resolve().unlink()
    assert cache.latest() is None


def test_what_came_before_is_not_fetched_again(tmp_path: Path) -> None:
    cache, wanted = Cache.of("s3://models/a", str(tmp_path)), saved()
    with pytest.raises(RuntimeError), cache.part(wanted) as part:
        assert part is not None
        part.write(DATA[:100])
        raise RuntimeError("broken off")
    with cache.part(wanted) as part:
        assert part is not None and part.size == 100
        part.write(DATA[100:])
        part.check()
    assert (cache.root / "blobs" / wanted.blob).read_bytes() == DATA


def test_what_is_damaged_is_thrown_away(tmp_path: Path) -> None:
    cache, wanted = Cache.of("s3://models/a", str(tmp_path)), saved()
    with pytest.raises(Damaged, match="MD5"), cache.part(wanted) as part:
        assert part is not None
        part.write(b"x" * len(DATA))
        part.check()
    with pytest.raises(Damaged, match="more bytes"), cache.part(wanted) as part:
        assert part is not None and part.size == 0
        part.write(DATA + b"x")
    with pytest.raises(Damaged, match="bytes came"), cache.part(wanted) as part:
        assert part is not None
        part.check()
    assert not (cache.root / "blobs" / wanted.blob).exists()
    odd = saved(etag="../../x")  # no MD5: of an object in parts, or of another server's making
    store(cache, odd)
    assert [path.name for path in (cache.root / "blobs").iterdir() if path.name == odd.blob]
    assert os.sep not in odd.blob
