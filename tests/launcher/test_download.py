"""Downloads by the real huggingface_hub, from a small hub on 127.0.0.1 that speaks its protocol."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from penstock_launcher.download import choose_files
from penstock_launcher.errors import LauncherError
from penstock_launcher.model import HubModel

SHA = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_secret_token"
WEIGHTS = bytes(range(256)) * 4096  # 1 MiB
GOOD = {
    "config.json": b"{}",
    "tokenizer.json": b'{"a": 1}',
    "tokenizer_config.json": b"{}",
    "chat_template.jinja": b"{{ messages }}",
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"pickle",
    "modeling_evil.py": b"raise SystemExit",
    "README.md": b"# hello",
    "original/params.json": b"{}",
    "original/consolidated.00.pth": b"pickle",
}
PICKLED = {"config.json": b"{}", "pytorch_model.bin": b"pickle"}
REPOSITORIES = {"org/good": GOOD, "org/pickled": PICKLED, "org/gated": GOOD, "org/private": GOOD}


class Hub(BaseHTTPRequestHandler):
    """The part of the hub's HTTP interface that a download of a model uses."""

    protocol_version = "HTTP/1.1"
    asked: list[str] = []

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        path = unquote(urlsplit(self.path).path)
        Hub.asked.append(path)
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            self.answer_api("/".join(parts[2:4]), parts[4:])
        elif parts[2:3] != ["resolve"]:
            self.send(404, b"")
        else:
            self.answer_file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))

    def answer_api(self, repository, rest):
        if not self.allowed(repository):
            return
        files = REPOSITORIES[repository]
        if rest[:1] == ["tree"]:
            entries = [
                {"type": "file", "path": name, "size": len(data), "oid": oid(data)}
                for name, data in files.items()
            ]
            return self.send(200, json.dumps(entries).encode())
        if rest[:1] == ["revision"] and rest[1] not in ("main", SHA, "v1"):
            return self.send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        siblings = [{"rfilename": name, "size": len(data)} for name, data in files.items()]
        info = {"id": repository, "modelId": repository, "sha": SHA, "siblings": siblings}
        self.send(200, json.dumps(info | {"private": False, "tags": [], "downloads": 0}).encode())

    def answer_file(self, repository, revision, name):
        if not self.allowed(repository):
            return
        data = REPOSITORIES[repository][name]
        headers = {"ETag": f'"{oid(data)}"', "X-Repo-Commit": SHA, "Accept-Ranges": "bytes"}
        self.send(200, data, headers)

    def allowed(self, repository):
        authorised = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if repository == "org/gated" and not authorised:
            self.send(403, b"{}", {"X-Error-Code": "GatedRepo"})
            return False
        if repository not in REPOSITORIES or (repository == "org/private" and not authorised):
            self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            return False
        return True

    def send(self, status, body, headers=None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


def oid(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


@pytest.fixture(scope="module")
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


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
    assert "cannot be reached" in records[-1]["message"]


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


def test_safetensors_in_a_subfolder_do_not_count():
    with pytest.raises(LauncherError, match="no .safetensors"):
        choose_files(["config.json", "onnx/model.safetensors"], wanted(with_weights=True))
