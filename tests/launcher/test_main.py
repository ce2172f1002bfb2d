"""The command as an operator meets it: exit codes, the last line, what it never says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def launch(*argv: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    clean = {n: v for n, v in os.environ.items() if not n.startswith("HF_")}
    return subprocess.run(
        [sys.executable, "-m", "penstock_launcher", *argv],
        env=clean | {"HOSTNAME": "127.0.0.1", "PORT": "0"} | (env or {}),
        capture_output=True,
        text=True,
        timeout=60,
    )


def last_line(result: subprocess.CompletedProcess[str]) -> str:
    return result.stdout.splitlines()[-1]


@pytest.fixture
def prefix(tmp_path: Path) -> str:
    return str(tmp_path / "run")


def test_version():
    result = launch("--version")
    assert (result.returncode, result.stdout.split()[0]) == (0, "penstock")


def test_bad_option_is_usage():
    result = launch("--port", "http")
    assert (result.returncode, result.stdout) == (2, "")
    assert "--port" in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "argv, words",
    [
        (["--model-id", "/no/such/folder"], "/no/such/folder"),
        (["--max-input-tokens", "8", "--max-total-tokens", "8"], "--max-input-tokens"),
        (["--sharded", "true", "--device", "cpu"], "--sharded"),
        (["--shard-uds-path", "/tmp/" + "x" * 100], "--shard-uds-path"),
        (["--shard-uds-path", "/no/such/folder/run"], "--shard-uds-path"),
        (["--ssl-keyfile", "/k.pem"], "--ssl-keyfile was given without --ssl-certfile"),
        (["--ssl-certfile", "/no/c.pem"], "--ssl-certfile /no/c.pem cannot be used: No such file"),
        (
            ["--batch-folder", "/proc/x"],
            "--batch-folder /proc/x cannot be written to: No such file",
        ),
        (["--uds", "/no/such/folder/s"], "cannot listen at /no/such/folder/s (--uds)"),
    ],
)
def test_failure_is_one_sentence_in_the_last_line(argv, words):
    result = launch(*argv)
    assert (result.returncode, result.stderr) == (1, "")
    assert "ERROR launcher: " in last_line(result) and words in last_line(result)


def test_pickled_weights_are_never_opened(tmp_path, prefix):
    """A pickle that would create a file if anything loaded it."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    sentinel = tmp_path / "opened"
    (model / "pytorch_model.bin").write_text(f"cposix\nsystem\n(S'touch {sentinel}'\ntR.")
    result = launch("--model-id", str(model), "--shard-uds-path", prefix)
    assert result.returncode == 1 and "save_pretrained" in last_line(result)
    assert not sentinel.exists()
    assert list(tmp_path.iterdir()) == [model], "the run folder is gone"


def test_offline_and_not_in_the_cache(tmp_path, prefix):
    """Through the real download child, as the launcher starts it."""
    env = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "hf_s3cret"}
    result = launch("--model-id", "org/name", "--shard-uds-path", prefix, env=env)
    assert result.returncode == 1
    assert last_line(result).endswith(
        "ERROR launcher: org/name is not complete in the cache, "
        "and HF_HUB_OFFLINE forbids to fetch it"
    )
    assert "hf_s3cret" not in result.stdout + result.stderr


def test_secrets_stay_out_of_the_log():
    for argv, env in ((["--api-key", "hunter22"], {}), ([], {"API_KEY": "hunter22"})):
        result = launch("--model-id", "/nope", *argv, env=env)
        assert "api_key=***" in result.stdout
        assert "hunter22" not in result.stdout + result.stderr


def test_keys_of_a_file_stay_out_of_the_log(tmp_path):
    path = tmp_path / "keys"
    path.write_text("hunter22\nhunter33\n")
    result = launch("--model-id", "/no/hunter33", "--api-key-file", str(path))
    assert "api_key=***" in result.stdout and "/no/***" in last_line(result)
    assert "hunter" not in result.stdout + result.stderr
    path.write_text("\n")
    result = launch("--api-key-file", str(path))
    assert result.returncode == 1
    assert last_line(result).endswith(f"ERROR launcher: --api-key-file {path} holds no key")


def test_environment_report_then_goes_on():
    result = launch("--env", "--json-output", "--model-id", "/nope")
    records = [json.loads(line) for line in result.stdout.splitlines()]
    report = next(record for record in records if record["message"] == "runtime environment")
    assert report["python"] and report["penstock"] and report["gpus"]
    assert (result.returncode, records[-1]["level"]) == (1, "ERROR")


def test_name_of_a_container_as_hostname():
    result = launch("--model-id", "/nope", env={"HOSTNAME": "3f2a9c0d1e4b"})
    assert "environment variable HOSTNAME must be an IP address" in result.stdout


def test_a_model_in_cloud_storage_is_not_passed_over():
    """Vertex AI names it; the demo model instead of it would be a surprise."""
    result = launch(env={"AIP_STORAGE_URI": "gs://bucket/model"})
    assert result.returncode == 1
    assert "AIP_STORAGE_URI=gs://bucket/model names the model" in last_line(result)
    result = launch("--model-id", "/nope", env={"AIP_STORAGE_URI": "gs://bucket/model"})
    assert "is not read: the model is /nope" in result.stdout
