"""Fetches a model from a bucket of S3's kind into the hub's cache, as `download` does from the hub.

Endpoint and credentials are those that every tool of AWS finds: AWS_ENDPOINT_URL, AWS_*, profiles,
roles. boto3 is the extra `s3`. Reads `S3Model` as JSON on standard input; its ready line is
`{"path", "sha"}` or `{"error": sentence}`.
"""

from __future__ import annotations

import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock_launcher.errors import LauncherError
from penstock_launcher.meter import Meter, say
from penstock_launcher.model import S3Model, choose_files
from penstock_launcher.s3_cache import Cache, Damaged, Part, SavedObject
from penstock_launcher.task_answer import answer

MOST_KEYS = 10_000  # below a prefix
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,254}")
FILES_AT_ONCE = 8
TRIES = 6  # of an object, each behind what came before
READ_BYTES = 1 << 20
PASSING = ("500", "502", "503", "504", "InternalError", "ServiceUnavailable", "SlowDown")
REASONS = {  # codes of S3's errors, as sentences
    "NoSuchBucket": "there is no such bucket",
    "404": "there is no such bucket or object",
    "AccessDenied": "the credentials do not allow it",
    "403": "the credentials do not allow it",
    "InvalidAccessKeyId": "the access key is unknown",
    "SignatureDoesNotMatch": "the secret key does not fit the access key",
    "ExpiredToken": "the session token has expired",
    "PreconditionFailed": "an object was replaced while it was read",
    "412": "an object was replaced while it was read",
}


@dataclass(frozen=True, slots=True)
class Bucket:
    """A client of S3, and what its library calls its errors."""

    client: Any
    refused: type[Exception]  # an answer that says no
    broken: tuple[type[Exception], ...]  # no answer, or a part of one


def connect() -> Bucket:
    """Raises LauncherError without boto3."""
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError
        from urllib3.exceptions import HTTPError
    except ImportError:
        raise LauncherError(
            "models of s3:// are read by boto3, which is missing: pip install 'penstock[s3]'"
        ) from None
    retries = {"mode": "standard", "max_attempts": 5}
    config = Config(retries=retries, connect_timeout=10, read_timeout=60)
    try:
        client = boto3.client("s3", config=config)
    except (BotoCoreError, ValueError) as error:
        raise LauncherError(f"S3 cannot be used: {error}") from None
    return Bucket(client, ClientError, (BotoCoreError, HTTPError, OSError))


def fetch(wanted: S3Model) -> tuple[Path, str]:
    """Folder and fingerprint of what the bucket holds. Raises LauncherError."""
    bucket = connect()
    cache = Cache.of(wanted.model_id, wanted.cache)
    try:
        return _fetch(bucket, wanted, cache)
    except bucket.refused as error:
        code = str(error.response.get("Error", {}).get("Code", ""))  # type: ignore[attr-defined]
        if code in PASSING and (kept := cache.latest()):
            return _served_from_cache(wanted, kept, error)
        raise LauncherError(f"{wanted.model_id}: {REASONS.get(code, error)}") from error
    except Damaged as error:
        raise LauncherError(f"{wanted.model_id}: {error}") from error
    except bucket.broken as error:
        if isinstance(error, OSError) and error.strerror:
            where = error.filename or cache.root
            raise LauncherError(
                f"{wanted.model_id} could not be stored: {error.strerror} ({where})"
            ) from error
        if type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError"):
            raise LauncherError(
                f"{wanted.model_id}: there are no credentials: set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or give the machine a role"
            ) from error
        if kept := cache.latest():
            return _served_from_cache(wanted, kept, error)
        raise LauncherError(f"{wanted.model_id} could not be fetched: {error}") from error


def _served_from_cache(wanted: S3Model, kept: Path, error: Exception) -> tuple[Path, str]:
    """A server that restarts while the bucket cannot be reached goes on with what it had."""
    say("WARN", f"{error}: serving {wanted.model_id} from the cache")
    return kept, kept.name


def _fetch(bucket: Bucket, wanted: S3Model, cache: Cache) -> tuple[Path, str]:
    listed = _list(bucket, wanted)
    if not listed:
        raise LauncherError(f"{wanted.model_id} holds no files")
    chosen = choose_files(list(listed), wanted)
    if "config.json" not in chosen:
        raise LauncherError(f"{wanted.model_id} holds no config.json")
    objects = [listed[name] for name in chosen]
    meter = Meter(sum(each.size for each in objects))
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        tasks = [pool.submit(_save, bucket, wanted, cache, each, meter) for each in objects]
        try:
            for task in tasks:
                task.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    meter.finish()
    folder = cache.publish(objects)
    return folder, folder.name


def _list(bucket: Bucket, wanted: S3Model) -> dict[str, SavedObject]:
    """The objects right below the prefix, by name; those with a name that is no plain one are left
    out."""
    prefix = f"{wanted.prefix}/" if wanted.prefix else ""
    pages = bucket.client.get_paginator("list_objects_v2").paginate(
        Bucket=wanted.bucket, Prefix=prefix, Delimiter="/"
    )
    found: dict[str, SavedObject] = {}
    for page in pages:
        for entry in page.get("Contents", ()):
            name = str(entry["Key"])[len(prefix) :]
            if NAME.fullmatch(name):
                etag = str(entry["ETag"]).strip('"')
                found[name] = SavedObject(name, str(entry["Key"]), etag, int(entry["Size"]))
            elif name:
                say("WARN", f"left out for its name: {name!r:.120}")
        if len(found) > MOST_KEYS:
            raise LauncherError(f"{wanted.model_id} holds more than {MOST_KEYS:,} files")
    return found


def _save(
    bucket: Bucket, wanted: S3Model, cache: Cache, wanted_object: SavedObject, meter: Meter
) -> None:
    """Has the object in the cache, going on behind what an earlier try has left."""
    with cache.part(wanted_object) as part:
        if part is None:
            meter.add(wanted_object.size)
            return
        meter.add(part.size)
        for attempt in range(TRIES):
            try:
                _read(bucket, wanted, wanted_object, part, meter)
                break
            except bucket.broken as error:
                if attempt + 1 == TRIES or isinstance(error, OSError):  # the disk's
                    raise
                say("WARN", f"{wanted_object.name} broke off at {part.size:,} bytes: {error}")
        part.check()


def _read(
    bucket: Bucket, wanted: S3Model, wanted_object: SavedObject, part: Part, meter: Meter
) -> None:
    if part.size == wanted_object.size and part.size:
        return
    span = {"Range": f"bytes={part.size}-"} if part.size else {}
    answer = bucket.client.get_object(
        Bucket=wanted.bucket, Key=wanted_object.key, IfMatch=f'"{wanted_object.etag}"', **span
    )
    if answer["ETag"].strip('"') != wanted_object.etag:
        raise Damaged(f"{wanted_object.name} was replaced while it was read")
    part.encrypted = "kms" in str(answer.get("ServerSideEncryption", "")) or bool(
        answer.get("SSECustomerAlgorithm")
    )
    for data in answer["Body"].iter_chunks(READ_BYTES):
        part.write(data)
        meter.add(len(data))


def main() -> None:
    wanted = S3Model(**json.load(sys.stdin))
    answer(lambda: fetch(wanted))


if __name__ == "__main__":
    main()
