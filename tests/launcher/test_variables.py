"""An option under each of its names in the environment: TGI's prefix, SageMaker, Vertex AI."""

import pytest

from launcher.test_options import SAMPLES, refused
from penstock_launcher import sagemaker
from penstock_launcher.command_line import parse
from penstock_launcher.options import OPTIONS, Options
from penstock_launcher.unsupported import UNSUPPORTED

IN_ENVIRONMENT = [option for option in OPTIONS if option.variable]


@pytest.mark.parametrize("option", IN_ENVIRONMENT, ids=lambda option: option.name)
def test_every_option_is_read_behind_the_prefix_too(option):
    text, value, _ = SAMPLES[option.name]
    options, notices = parse([], {f"TGI_{option.variable}": text})
    assert (options, notices) == (Options(**{option.name: value}), [])


@pytest.mark.parametrize("option", IN_ENVIRONMENT, ids=lambda option: option.name)
def test_two_names_may_agree_but_not_contradict(option):
    text, value, _ = SAMPLES[option.name]
    plain, prefixed = option.variable, f"TGI_{option.variable}"
    agreed = parse([], {plain: text, prefixed: text})
    assert agreed == (Options(**{option.name: value}), [])
    # another value that the option takes
    others = ("cpu", "1", "2", "off", "/x", "auto", "cuda", "bfloat16", "::1", "debug", "awq")
    other = next((o for o in others if _takes(option, o) and _value(option, o) != value), None)
    if other is None:
        pytest.skip("the option has one value")
    message = refused([], {plain: text, prefixed: other})
    assert plain in message and prefixed in message and option.flag in message
    if option.secret:
        assert text not in message
    assert parse([], {plain: text, prefixed: ""})[0] == Options(**{option.name: value})


def _value(option, text):
    value = option.kind.parse(text)
    return (value,) if option.kind.repeated else value


def _takes(option, text):
    try:
        option.kind.parse(text)
    except ValueError:
        return False
    return True


def test_values_are_compared_not_texts():
    assert parse([], {"SHARDED": "1", "TGI_SHARDED": "true"})[0].sharded is True


def test_the_container_id_does_not_contradict_an_address():
    """Docker sets HOSTNAME to what is no address."""
    environ = {"HOSTNAME": "3f2a9c0d1e4b", "TGI_HOSTNAME": "127.0.0.1"}
    assert parse([], environ) == (Options(hostname="127.0.0.1"), [])


def test_a_kubernetes_service_named_tgi_changes_nothing():
    options, (notice,) = parse([], {"TGI_PORT": "tcp://10.0.0.1:80", "PORT": "81"})
    assert options.port == 81 and "TGI_PORT" in notice


def test_a_bad_value_is_named_as_it_was_given():
    assert "TGI_PORT must be" in refused([], {"TGI_PORT": "http"})
    assert "HF_MODEL_TRUST_REMOTE_CODE" in refused([], {"HF_MODEL_TRUST_REMOTE_CODE": "true"})
    assert "AIP_HTTP_PORT" in refused([], {"AIP_HTTP_PORT": "http", "PORT": "80"})


@pytest.mark.parametrize(
    "unsupported", [u for u in UNSUPPORTED if u.variable], ids=lambda u: u.name
)
def test_what_is_refused_is_refused_behind_the_prefix(unsupported):
    for variable in unsupported.variables:
        for text in unsupported.harmless:
            assert parse([], {variable: text}) == (Options(), [])
        if "true" not in unsupported.harmless:
            assert variable in refused([], {variable: "true"})


def test_vertex():
    environ = {
        "PORT": "80",  # the image's own
        "AIP_HTTP_PORT": "8080",
        "AIP_PREDICT_ROUTE": "/v1/endpoints/1/deployedModels/2:predict",
        "AIP_HEALTH_ROUTE": "/v1/endpoints/1/deployedModels/2",
    }
    options, notices = parse([], environ)
    assert notices == []
    assert options == Options(
        port=8080,
        predict_route="/v1/endpoints/1/deployedModels/2:predict",
        health_route="/v1/endpoints/1/deployedModels/2",
    )
    assert parse(["--port", "7"], environ)[0].port == 7


def test_sagemaker(tmp_path, monkeypatch):
    environ = {
        "PORT": "80",
        "HF_MODEL_ID": "org/name",
        "HF_MODEL_REVISION": "v2",
        "SM_NUM_GPUS": "4",
        "HF_MODEL_QUANTIZE": "fp8",
        "HF_MODEL_TRUST_REMOTE_CODE": "false",
    }
    monkeypatch.setattr(sagemaker, "MODEL", tmp_path)
    (tmp_path / "config.json").write_text("{}")
    expected = Options(port=8080, model_id="org/name", revision="v2", num_shard=4, quantize="fp8")
    assert parse(*sagemaker.adapt(["serve"], environ)) == (expected, [])
    # the archive that SageMaker unpacked, and a port of its choice
    environ = {"PORT": "80", "SAGEMAKER_BIND_TO_PORT": "9001"}
    assert parse(*sagemaker.adapt(["serve"], environ))[0] == Options(
        port=9001, model_id=str(tmp_path)
    )
    (tmp_path / "config.json").unlink()
    assert parse(*sagemaker.adapt(["serve", "--num-shard", "2"], {}))[0] == Options(
        port=8080, num_shard=2
    )


def test_without_sagemaker_nothing_changes():
    assert sagemaker.adapt(["--port", "1"], {"PORT": "80"}) == (["--port", "1"], {"PORT": "80"})
    assert "serve" in refused(["--port", "1", "serve"])


def test_log_level_of_tgi_with_modules_falls_back():
    options, (notice,) = parse([], {"LOG_LEVEL": "info,text_generation_router=debug"})
    assert options.log_level == "info" and "LOG_LEVEL" in notice
