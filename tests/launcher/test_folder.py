"""What a model folder may hold: plain files of its own."""

import os
import socket

import pytest

from penstock_launcher.errors import LauncherError
from penstock_launcher.folder import TEXT_LIMIT, check_entries, check_file


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def refused(folder, words):
    with pytest.raises(LauncherError, match=words):
        check_entries(folder)


@pytest.mark.parametrize(
    "name",
    ["chat_template.jinja", "config.json", "model.safetensors", "tokenizer.model"],
)
def test_m6_links_out_of_the_folder(folder, tmp_path, name):
    (tmp_path / "secret").write_text("root:x")
    (folder / name).unlink(missing_ok=True)
    for target in (tmp_path / "secret", "../secret", "/etc/passwd", "/dev/zero"):
        (folder / name).symlink_to(target)
        refused(folder, f"{name} is a link that leads out of its folder, to /")
        (folder / name).unlink()
    (folder / "way").symlink_to(tmp_path)
    (folder / name).symlink_to("way/secret")
    refused(folder, f"{name} is a link that leads out")


def test_links_within_the_folder(folder):
    """As a mounted ConfigMap has them."""
    (folder / "..2024").mkdir()
    (folder / "..2024" / "tokenizer.json").write_text("{}")
    (folder / "..data").symlink_to("..2024")
    (folder / "tokenizer.json").symlink_to("..data/tokenizer.json")
    (folder / "notes").symlink_to("/etc/passwd")  # nobody reads it
    check_entries(folder)


def test_snapshots_of_the_hubs_cache(tmp_path):
    repository = tmp_path / "models--org--name"
    snapshot = repository / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / "blobs" / "abc").write_text("{}")
    (snapshot / "config.json").symlink_to("../../blobs/abc")
    check_entries(snapshot)
    (tmp_path / "link").symlink_to(snapshot)
    check_entries(tmp_path / "link")
    (snapshot / "tokenizer.json").symlink_to("../../refs")
    refused(snapshot, "tokenizer.json is a link that leads out")


def test_a_folder_that_only_looks_like_the_hubs(tmp_path):
    """Its `blobs` leads anywhere."""
    snapshot = tmp_path / "evil" / "snapshots" / "x"
    snapshot.mkdir(parents=True)
    (tmp_path / "evil" / "blobs").symlink_to("/etc")
    (snapshot / "config.json").symlink_to("../../blobs/passwd")
    refused(snapshot, "config.json is a link that leads out")


def test_m6_what_is_no_file(folder):
    os.mkfifo(folder / "model.safetensors")
    refused(folder, "model.safetensors is a pipe, not a file")
    (folder / "model.safetensors").unlink()
    (folder / "tokenizer.json").mkdir()
    refused(folder, "tokenizer.json is a folder, not a file")
    (folder / "tokenizer.json").rmdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "s.json"))
        refused(folder, "s.json is a socket, not a file")
    (folder / "s.json").unlink()
    (folder / "gone.json").symlink_to("nothing")
    refused(folder, "gone.json cannot be read: No such file or directory")


def test_a_text_file_that_is_too_large(folder):
    for name in ("tokenizer.json", "model.safetensors"):
        with (folder / name).open("wb") as file:
            file.truncate(TEXT_LIMIT + 1)
    refused(folder, "tokenizer.json has 134,217,729 bytes; at most 134,217,728")
    (folder / "tokenizer.json").unlink()
    check_entries(folder)  # weights may be of any size


def test_m6_a_file_that_an_option_names(tmp_path):
    (tmp_path / "t.json").write_text("{}")
    (tmp_path / "link.json").symlink_to("t.json")
    check_file(tmp_path / "link.json", "tokenizer-config-path")  # the operator's own business
    os.mkfifo(tmp_path / "pipe.json")
    for name, words in (("pipe.json", "is a pipe"), ("none.json", "cannot be read: No such file")):
        with pytest.raises(
            LauncherError, match=f"--tokenizer-config-path {tmp_path}/{name} {words}"
        ):
            check_file(tmp_path / name, "tokenizer-config-path")
