"""Where the hub's token comes from."""

import pytest

from penstock_launcher.hub_token import hub_token


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def login(path, text="hf_login\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return {}


@pytest.mark.parametrize("name", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_API_TOKEN"])
def test_w11_of_the_environment(home, name):
    login(home / ".cache/huggingface/token")
    assert hub_token({name: " hf_x\n"}) == "hf_x"
    assert hub_token({"HF_API_TOKEN": "b", "HF_TOKEN": "a"}) == "a"


@pytest.mark.parametrize(
    "place, environ",
    [
        ("mounted/secret", {"HF_TOKEN_PATH": "{home}/mounted/secret"}),
        ("hf/token", {"HF_HOME": "{home}/hf"}),
        ("cache/huggingface/token", {"XDG_CACHE_HOME": "{home}/cache"}),
        (".cache/huggingface/token", {}),
        (".cache/huggingface/token", {"HF_TOKEN": ""}),
        ("x/token", {"HF_TOKEN_PATH": "~/x/token"}),
    ],
)
def test_w11_of_a_login(home, place, environ):
    environ = {name: value.format(home=home) for name, value in environ.items()}
    assert hub_token(environ) is None
    login(home / place)
    assert hub_token(environ) == "hf_login"
    assert hub_token(environ | {"HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}) is None


def test_a_file_that_holds_none(home):
    assert hub_token(login(home / ".cache/huggingface/token", " \n")) is None
    assert hub_token(login(home / ".cache/huggingface/token", "\xff\xfe")) is None
    assert hub_token({"HF_TOKEN_PATH": "/dev/zero"}) is None
