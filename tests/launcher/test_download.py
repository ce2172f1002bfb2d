"""Downloads by the real huggingface_hub, from a small hub on 127.0.0.1 that speaks its protocol."""

import errno
import json
import os
import resource
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from penstock_launcher.download import _explain, choose_files
from penstock_launcher.errors import LauncherError
from penstock_launcher.model import HubModel
from support.small_hub import GOOD, SHA, TOKEN, WEIGHTS, Hub, running_hub


@pytest.fixture(scope="module")
def hub():
    with running_hub() as url:
        yield url


@pytest.fixture
def download(hub, tmp_path):
    """Runs the launcher's download program as the launcher does."""

    def run(model_id="org/good", *, offline=False, endpoint=hub, **fields):
        Hub.asked.clear()
        wanted = HubModel(
            **{
                "model_id": model_id,
                "revision": None,
                "cache": str(tmp_path / "cache"),
                "token": None,
                "with_weights": True,
            }
            | fields
        )
        environment = {n: v for n, v in os.environ.items() if not n.startswith("HF_")}
        environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "home")}
        environment |= {"HF_HUB_OFFLINE": "1"} if offline else {}
        read_fd, write_fd = os.pipe()
        with os.fdopen(read_fd) as ready:
            result = subprocess.run(
                [sys.executable, "-m", "penstock_launcher.download"],
                input=json.dumps(asdict(wanted)),
                env=environment | {"PENSTOCK_READY_FD": str(write_fd)},
                pass_fds=(write_fd,),
                capture_output=True,
                text=True,
                timeout=60,
            )
            os.close(write_fd)
            answer = json.loads(ready.read())
        records = [json.loads(line) for line in result.stderr.splitlines() if line[0] == "{"]
        assert (result.returncode, "Traceback" in result.stderr) == (0, False), result.stderr
        return answer, records

    return run


def test_takes_what_is_needed_and_nothing_else(download):
    answer, records = download()
    assert answer["sha"] == SHA
    folder = Path(answer["path"])
    assert sorted(path.name for path in folder.iterdir()) == [
        "chat_template.jinja",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert not [path for path in Hub.asked if path.endswith((".bin", ".py", ".pth", ".md"))]
    progress = [record["progress"] for record in records if "progress" in record]
    total = sum(len(GOOD[path.name]) for path in folder.iterdir())
    assert progress[-1] == {"what": "download", "done": total, "total": total, "unit": "B"}
    assert [p["done"] for p in progress] == sorted(p["done"] for p in progress)


def test_without_weights(download):
    answer, _ = download(with_weights=False)
    assert not list(Path(answer["path"]).glob("*.safetensors"))


def test_offline_after_online(download):
    first, _ = download()
    answer, _ = download(offline=True, endpoint="http://127.0.0.1:9")
    assert answer == first
    assert Hub.asked == []


def test_hub_is_down_after_a_first_time(download):
    first, _ = download(revision="v1")
    answer, records = download(revision="v1", endpoint="http://127.0.0.1:9")
    assert answer == first
    assert records[-1]["message"].endswith(": serving org/good from the cache")


@pytest.mark.parametrize("status", [429, 500, 503])
def test_w10_hub_refuses_after_a_first_time(download, monkeypatch, status):
    first, _ = download()
    monkeypatch.setattr(Hub, "status", status)
    answer, records = download()
    assert answer == first
    assert records[-1]["level"] == "WARN"
    assert str(status) in records[-1]["message"]
    assert records[-1]["message"].endswith(": serving org/good from the cache")


@pytest.mark.parametrize("status", [429, 503])
def test_w10_hub_refuses_the_first_time(download, monkeypatch, status):
    monkeypatch.setattr(Hub, "status", status)
    answer, _ = download()
    assert "could not be fetched from" in answer["error"] and str(status) in answer["error"]


def test_what_the_hub_says_of_the_model_itself_counts(download, monkeypatch):
    """A model that is gone, or not ours to read any more, is not served from the cache."""
    download()
    for status in (401, 403, 404):
        monkeypatch.setattr(Hub, "status", status)
        answer, _ = download()
        assert "error" in answer, status


def test_commit_as_revision(download):
    answer, _ = download(revision=SHA)
    assert answer["sha"] == SHA
    assert download(revision=SHA, offline=True)[0] == answer


def test_incomplete_cache_is_not_served(download, tmp_path):
    answer, _ = download()
    Path(answer["path"], "tokenizer.json").unlink()
    answer, _ = download(offline=True)
    assert "not complete in the cache" in answer["error"]


def test_pickled_weights_are_refused_before_any_file_is_fetched(download):
    answer, _ = download("org/pickled")
    assert "save_pretrained" in answer["error"]
    assert not [path for path in Hub.asked if "/resolve/" in path]


def test_token_opens_gated_and_private_models(download):
    for model_id in ("org/gated", "org/private"):
        answer, _ = download(model_id, token=TOKEN)
        assert Path(answer["path"], "config.json").is_file()


@pytest.mark.parametrize(
    "model_id, fields, words",
    [
        ("org/none", {}, "knows no model org/none"),
        ("org/private", {}, "HF_TOKEN"),
        ("org/gated", {}, "accept its terms"),
        ("org/good", {"revision": "v9"}, "has no revision 'v9'"),
        ("org/good", {"offline": True}, "HF_HUB_OFFLINE"),
        ("org/good", {"endpoint": "http://127.0.0.1:9"}, "could not be fetched"),
    ],
)
def test_errors_are_one_sentence(download, model_id, fields, words):
    answer, _ = download(model_id, **fields)
    assert words in answer["error"] and "\n" not in answer["error"]


def wanted(**fields):
    return HubModel(**{"model_id": "m", "revision": None, "cache": None, "token": None} | fields)


def test_second_copy_of_the_weights_is_left():
    names = ["config.json", "consolidated.safetensors", "model-00001-of-00001.safetensors"]
    assert choose_files(names, wanted(with_weights=True)) == [names[0], names[2]]
    assert choose_files(names[:2], wanted(with_weights=True)) == names[:2]
    adapter = ["config.json", "adapter_model.safetensors", "model.safetensors"]
    assert choose_files(adapter, wanted(with_weights=True)) == [adapter[0], adapter[2]]


def test_safetensors_in_a_subfolder_do_not_count():
    with pytest.raises(LauncherError, match="no .safetensors"):
        choose_files(["config.json", "onnx/model.safetensors"], wanted(with_weights=True))


def test_a_folder_of_another_user_is_named_with_what_to_do():
    """A volume that was filled by a server that ran as root."""
    error = PermissionError(errno.EACCES, "Permission denied", "/data/hub")
    sentence = _explain(error, HubModel("org/name", None, None, None, True))
    assert f"user {os.getuid()} may not write /data/hub" in sentence and "chown" in sentence


def test_a_full_disk_is_said(download, monkeypatch):
    """Files of a few bytes, as a full disk would let the cache have: the sentence says why."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, limit[1]))
    try:
        answer, _ = download()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert answer["error"].startswith("org/good could not be stored: File too large")
