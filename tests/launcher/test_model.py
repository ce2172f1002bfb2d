"""Which folder is served, and which is refused."""

from pathlib import Path

import pytest

from penstock_launcher.errors import LauncherError
from penstock_launcher.model import DEMO, Model, check_folder, local_model
from penstock_launcher.options import Options


def folder_with(path: Path, *names: str) -> Path:
    path.mkdir(exist_ok=True)
    for name in names:
        (path / name).write_text(name)
    return path


def test_default_is_the_demo_model():
    assert local_model(Options()) == Model(DEMO, "penstock-demo", None)


def test_local_folder_is_used_as_it_is(tmp_path):
    assert local_model(Options(model_id=str(tmp_path))) == Model(tmp_path, str(tmp_path), None)


def test_relative_folder_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert local_model(Options(model_id="org/name")) == Model(
        tmp_path / "org" / "name", "org/name", None
    )


@pytest.mark.parametrize("name", ["gpt2", "org/name", "mistralai/Mistral-7B-v0.1", "a/b_c.d-e"])
def test_hub_ids(name):
    assert local_model(Options(model_id=name)) is None


@pytest.mark.parametrize(
    "name",
    ["/no/such/folder", "../x", "a/../../b", "a/b/c", "a//b", "org/", "%2e%2e/x", "org/..name"]
    + ["org/a--b", "-x/y", "org/na me", "ünïcode/x", "x" * 97, "file://x", "http://x/y"],
)
def test_impossible_names_are_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where no relative path leads to a folder
    with pytest.raises(LauncherError, match="model-id"):
        local_model(Options(model_id=name))


def test_revision_needs_a_model():
    with pytest.raises(LauncherError, match="--revision"):
        local_model(Options(revision="v1"))


def test_folder_without_config(tmp_path):
    folder_with(tmp_path, "model.safetensors")
    with pytest.raises(LauncherError, match=r"config\.json"):
        check_folder(Model(tmp_path, "m", None), with_weights=True)


@pytest.mark.parametrize("pickled", ["pytorch_model.bin", "consolidated.00.pth", "model.pt"])
def test_pickled_weights_are_refused_with_the_way_out(tmp_path, pickled):
    folder_with(tmp_path, "config.json", pickled)
    with pytest.raises(LauncherError, match="save_pretrained"):
        check_folder(Model(tmp_path, "m", None), with_weights=True)


def test_folder_without_weights(tmp_path):
    model = Model(folder_with(tmp_path, "config.json"), "m", None)
    with pytest.raises(LauncherError, match="no .safetensors weights"):
        check_folder(model, with_weights=True)
    assert check_folder(model, with_weights=False) is model


def test_n4_an_adapter_alone_is_no_model(tmp_path):
    folder = folder_with(tmp_path / "m", "adapter_config.json", "adapter_model.safetensors")
    with pytest.raises(LauncherError, match=r"holds an adapter .* with `penstock merge`"):
        check_folder(Model(folder, "m", None), with_weights=True)
    folder_with(tmp_path / "m", "config.json")
    with pytest.raises(LauncherError, match=r"holds an adapter \(adapter_model.safetensors\)"):
        check_folder(Model(folder, "m", None), with_weights=True)
    (folder / "model.safetensors").touch()
    check_folder(Model(folder, "m", None), with_weights=True)
