"""Downloads by the real huggingface_hub, from a small hub on 127.0.0.1 that speaks its protocol."""

import errno
import gc
import json
import os
import resource
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from huggingface_hub import constants

from penstock_launcher.download import _explain, choose_files, fetch
from penstock_launcher.errors import LauncherError
from penstock_launcher.meter import told_to
from penstock_launcher.model import HubModel
from support.small_hub import GOOD, SHA, TOKEN, WEIGHTS, Hub, running_hub

RESOLVED = "/{repo_id}/resolve/{revision}/{filename}"


@pytest.fixture(scope="module")
def hub():
    with running_hub() as url:
        yield url


@pytest.fixture
def settings(tmp_path):
    """settings(model_id, **fields): what to fetch, into a cache of the test's own."""

    def of(model_id, **fields):
        fields = {"revision": None, "token": None, "with_weights": True} | fields
        return HubModel(model_id, cache=str(tmp_path / "cache"), **fields)

    return of


@pytest.fixture
def download(hub, settings, monkeypatch):
    """What the launcher's download program answers and logs, without a process of its own."""

    def run(model_id="org/good", *, offline=False, endpoint=hub, **fields):
        Hub.asked.clear()
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + RESOLVED)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        records = []
        with told_to(lambda line: records.append(json.loads(line))):
            try:
                folder, sha = fetch(settings(model_id, **fields))
                found = {"path": str(folder), "sha": sha}
            except LauncherError as error:
                found = {"error": str(error)}
        gc.collect()  # the hub closes no bar, and other tests' bars would stand below them
        return found, records

    return run


@pytest.fixture
def program(hub, settings, tmp_path):
    """Runs the launcher's download program as the launcher does."""

    def run(*, offline=False, endpoint=hub):
        Hub.asked.clear()
        environment = {n: v for n, v in os.environ.items() if not n.startswith("HF_")}
        environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "home")}
        environment |= {"HF_HUB_OFFLINE": "1"} if offline else {}
        read_fd, write_fd = os.pipe()
        with os.fdopen(read_fd) as ready:
            result = subprocess.run(
                [sys.executable, "-m", "penstock_launcher.download"],
                input=json.dumps(asdict(settings("org/good"))),
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


def test_takes_what_is_needed_and_nothing_else(program):
    answer, records = program()
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


def test_offline_after_online(program):
    first, _ = program()
    answer, _ = program(offline=True, endpoint="http://127.0.0.1:9")
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


def test_a_full_disk_is_said(program):
    """Files of a few bytes, as a full disk would let the cache have: the sentence says why."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, limit[1]))
    try:
        answer, _ = program()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert answer["error"].startswith("org/good could not be stored: File too large")
