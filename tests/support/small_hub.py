"""A small hub on 127.0.0.1 that speaks the part of the real one's protocol that a download uses."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

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
    status: int | None = None  # the answer to everything, where there is one

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        path = unquote(urlsplit(self.path).path)
        Hub.asked.append(path)
        if Hub.status is not None:
            return self.send(Hub.status, b"try later")
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


@contextmanager
def running_hub() -> Iterator[str]:
    """Its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
