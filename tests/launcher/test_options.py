"""Each option through flag, environment and default; help and docs/options.md say the same."""

import contextlib
import dataclasses
import io
import subprocess
import sys
from pathlib import Path

import pytest

from penstock_launcher.command_line import parse
from penstock_launcher.launch import given
from penstock_launcher.options import OPTIONS, Options
from penstock_launcher.options.page import markdown
from penstock_launcher.unsupported import TGI_VARIABLES, UNSUPPORTED

ROOT = Path(__file__).parent.parent.parent

JSON = ["x", "[1]", '"text"', "null", '{"a": NaN}', '{"a": 1']
# option: (a value other than the default as text, what it becomes, texts that break its rule)
SAMPLES = {
    "model_id": ("org/name", "org/name", ["a\nb", "\x1b[31m"]),
    "revision": ("v1", "v1", ["a\0b"]),
    "served_model_name": ("gpt-4", ("gpt-4",), ["a\rb"]),
    "tokenizer_config_path": ("/tmp/t.json", "/tmp/t.json", ["a\nb"]),
    "hf_overrides": ('{"rope_theta": 1e6}', {"rope_theta": 1e6}, JSON),
    "rope_scaling": ("dynamic", "dynamic", ["yarn", "[1]", '{"type": ']),
    "rope_factor": ("2.5", 2.5, ["0", "0.5", "nan", "x"]),
    "override_generation_config": ('{"top_k": 5}', {"top_k": 5}, JSON),
    "default_chat_template_kwargs": ('{"a": [true]}', {"a": [True]}, JSON),
    "tool_call_parser": ("hermes", "hermes", ["a\nb"]),
    "reasoning_parser": ("none", "none", ["a\nb"]),
    "load_format": ("dummy", "dummy", ["pickle", "AUTO"]),
    "huggingface_hub_cache": ("/data", "/data", ["a\nb"]),
    "weights_cache_override": ("/data", "/data", ["a\nb"]),
    "sharded": ("true", True, ["maybe", "2"]),
    "num_shard": ("2", 2, ["0", "65", "-1", "two", "1.5", "1_0"]),
    "device": ("cpu", "cpu", ["tpu"]),
    "quantize": ("gptq", "gptq", ["gguf", "FP8"]),
    "quantize_activations": ("fp8", "fp8", ["int8", "FP8", "fp8_e5m2"]),
    "kv_cache_dtype": ("fp8_e5m2", "fp8_e5m2", ["int8", "FP8", "fp8_e4m3fnuz"]),
    "dtype": ("float16", "float16", ["int8", "f16"]),
    "cuda_graphs": ("1,2,8", (1, 2, 8), ["x", "-1", "1,,2", "4097", "1;2"]),
    "cuda_memory_fraction": ("0.5", 0.5, ["0", "1.1", "nan", "inf", "-0.5", "x"]),
    "kv_cache_memory": ("1000000", 1_000_000, ["0", "-1", "2GB", "1e9"]),
    "leave_free": ("0", 0, ["-1", "2GB"]),
    "kv_block_size": ("32", 32, ["0", "1025"]),
    "disable_prefix_cache": ("true", True, ["perhaps"]),
    "disable_shared_reads": ("true", True, ["perhaps"]),
    "disable_grammar_support": ("true", True, ["perhaps"]),
    "disable_dependent_launch": ("true", True, ["perhaps"]),
    "deterministic": ("1", True, ["perhaps"]),
    "step_timeout": ("2.5", 2.5, ["0", "nan", "1e9"]),
    "shard_uds_path": ("/run/shard", "/run/shard", ["a\nb"]),
    "master_addr": ("10.0.0.1", "10.0.0.1", ["a\nb"]),
    "master_port": ("29501", 29501, ["0", "65536"]),
    "step_rows": ("384,1152", (384, 1152), ["x", "1,,2", "100001", "-1"]),
    "max_input_tokens": ("100", 100, ["0", "-1", "1e3"]),
    "max_input_length": ("100", 100, ["0", "100000001"]),
    "max_total_tokens": ("200", 200, ["0", "x"]),
    "max_best_of": ("3", 3, ["0", "x"]),
    "max_stop_sequences": ("7", 7, ["0"]),
    "max_top_n_tokens": ("0", 0, ["-1", "1001"]),
    "max_client_batch_size": ("9", 9, ["0"]),
    "payload_limit": ("1000", 1000, ["0", "2MB"]),
    "strict_requests": ("true", True, ["perhaps"]),
    "generation_config": ("none", "none", ["sglang"]),
    "otlp_endpoint": ("http://127.0.0.1:4317", "http://127.0.0.1:4317", ["a\nb"]),
    "otlp_service_name": ("chat", "chat", ["a\nb"]),
    "otlp_protocol": ("http", "http/protobuf", ["thrift", "GRPC"]),
    "watermark_gamma": ("0.25", 0.25, ["0", "1.5", "nan"]),
    "watermark_delta": ("1.5", 1.5, ["0", "-1", "inf"]),
    "max_concurrent_requests": ("1", 1, ["0", "1000001"]),
    "max_batch_prefill_tokens": ("512", 512, ["0"]),
    "max_batch_total_tokens": ("4096", 4096, ["0"]),
    "max_batch_size": ("8", 8, ["0"]),
    "waiting_served_ratio": ("1.2", 1.2, ["-1", "nan", "inf"]),
    "max_waiting_tokens": ("0", 0, ["-1"]),
    "hostname": ("127.0.0.1", "127.0.0.1", ["localhost", "1.2.3", "0.0.0.0:80"]),
    "predict_route": ("/predict", "/predict", ["predict", "/", "/a/{b}", "/a?b", "/a b"]),
    "health_route": ("/a/b:c", "/a/b:c", ["a", "//", "/a/"]),
    "port": ("0", 0, ["-1", "65536", "http"]),
    "prometheus_port": ("9000", 9000, ["0", "65536"]),
    "api_key": ("hunter,22", ("hunter,22",), ["line\nbreak"]),
    "api_key_file": ("/run/keys", "/run/keys", ["a\nb"]),
    "cors_allow_origin": ("https://a.example", ("https://a.example",), ["a\nb"]),
    "max_connections_per_client": ("9", 9, ["0", "x"]),
    "max_requests_per_client": ("0", 0, ["-1"]),
    "trusted_proxies": ("10.0.0.0/8", ("10.0.0.0/8",), ["10.0.0.1/8", "proxy", "10.0.0.0/33"]),
    "offline_socket": ("true", True, ["maybe"]),
    "http_processes": ("3", 3, ["-1", "65", "1.5"]),
    "validation_workers": ("4", 4, ["0", "257"]),
    "graceful_termination_timeout": ("0", 0.0, ["-1", "nan"]),
    "drain_delay": ("0", 0.0, ["-1", "nan", "3601"]),
    "batch_folder": ("/data/batches", "/data/batches", ["a\nb"]),
    "batch_storage_limit": ("1000000", 1_000_000, ["0", "x"]),
    "nnodes": ("2", 2, ["0", "65"]),
    "node_rank": ("1", 1, ["-1", "64"]),
    "hosts_secret_file": ("/run/secret", "/run/secret", ["a\nb"]),
    "hosts_certs": ("/run/certs", "/run/certs", ["a\nb"]),
    "metric_names": ("vllm", ("vllm",), ["triton", "VLLM"]),
    "uds": ("/run/llm.sock", "/run/llm.sock", ["a\nb"]),
    "root_path": ("/llm/a", "/llm/a", ["llm", "/", "/a/"]),
    "ssl_certfile": ("/c.pem", "/c.pem", ["a\nb"]),
    "ssl_keyfile": ("/k.pem", "/k.pem", ["a\nb"]),
    "ssl_ca_certs": ("/a.pem", "/a.pem", ["a\nb"]),
    "stream_keepalive": ("0", 0.0, ["-1", "nan", "3601"]),
    "max_request_time": ("2.5", 2.5, ["0", "nan", "1e7"]),
    "max_headers": ("100", 100, ["15", "1025", "x"]),
    "max_header_size": ("16384", 16384, ["1023", "65537"]),
    "header_timeout": ("2.5", 2.5, ["0", "nan", "3601"]),
    "idle_timeout": ("2.5", 2.5, ["0", "-1", "nan"]),
    "json_output": ("true", True, ["2"]),
    "log_level": ("WARN", "warn", ["loud", "a=debug"]),
    "env": ("true", True, []),
}
# TGI's defaults (text-generation-launcher --help), where they are values and not derived
TGI_DEFAULTS = {
    "validation_workers": 2,
    "max_concurrent_requests": 128,
    "max_best_of": 2,
    "max_stop_sequences": 4,
    "max_top_n_tokens": 5,
    "waiting_served_ratio": 0.3,
    "max_waiting_tokens": 20,
    "hostname": "0.0.0.0",
    "port": 3000,
    "shard_uds_path": "/tmp/text-generation-server",
    "cuda_memory_fraction": 1.0,
    "cuda_graphs": None,
    "json_output": False,
    "max_client_batch_size": 4,
    "watermark_gamma": 0.5,
    "otlp_service_name": "text-generation-inference.router",
    "watermark_delta": 2.0,
    "payload_limit": 2_000_000,
    "graceful_termination_timeout": 90.0,
}


def refused(argv, environ=None):
    """What is said on standard error for a command line that must not be accepted."""
    stderr = io.StringIO()
    with contextlib.redirect_stderr(stderr), pytest.raises(SystemExit) as end:
        parse(argv, environ or {})
    assert end.value.code == 2
    return stderr.getvalue()


def test_every_option_has_a_sample():
    assert set(SAMPLES) == {field.name for field in dataclasses.fields(Options)}


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_flag(option):
    text, value, _ = SAMPLES[option.name]
    argv = [option.flag, text] if option.kind.takes_value else [option.flag]
    options, notices = parse(argv, {})
    assert dataclasses.asdict(options) == dataclasses.asdict(Options()) | {option.name: value}
    assert notices == []


@pytest.mark.parametrize("option", [o for o in OPTIONS if o.variable], ids=lambda o: o.name)
def test_environment(option):
    text, value, _ = SAMPLES[option.name]
    options, notices = parse([], {option.variable: text})
    assert dataclasses.asdict(options) == dataclasses.asdict(Options()) | {option.name: value}
    assert notices == []


@pytest.mark.parametrize("option", [o for o in OPTIONS if o.variable], ids=lambda o: o.name)
def test_empty_variable_counts_as_not_given(option):
    assert parse([], {option.variable: ""}) == (Options(), [])


def test_command_line_wins_over_environment():
    options, _ = parse(["--port", "1"], {"PORT": "2", "REVISION": "main"})
    assert (options.port, options.revision) == (1, "main")


def test_a_bad_variable_does_not_matter_when_the_flag_is_given():
    options, notices = parse(["--port", "1", "--hostname", "::1"], {"PORT": "x", "HOSTNAME": "y"})
    assert (options.port, options.hostname, notices) == (1, "::1", [])


@pytest.mark.parametrize("name, text", [(n, t) for n, s in SAMPLES.items() for t in s[2]])
def test_broken_rule(name, text):
    option = next(option for option in OPTIONS if option.name == name)
    sentence = f"must be {option.kind.rule}"
    if option.kind.takes_value:
        message = refused([f"{option.flag}={text}"])
        assert option.flag in message and sentence in message
    if option.variable and option.env_fallback is None:
        message = refused([], {option.variable: text})
        assert option.variable in message and sentence in message


def test_secret_is_not_repeated_in_an_error():
    for message in (refused(["--api-key=hunter\n22"]), refused([], {"API_KEY": "hunter\n22"})):
        assert "hunter" not in message


def test_hostname_of_docker_falls_back():
    options, notices = parse([], {"HOSTNAME": "3f2a9c0d1e4b"})
    assert options.hostname == "0.0.0.0"
    assert len(notices) == 1 and "HOSTNAME" in notices[0] and "3f2a9c0d1e4b" in notices[0]


@pytest.mark.parametrize("variable", ["PORT", "PROMETHEUS_PORT", "MASTER_PORT", "NUM_SHARD"])
@pytest.mark.parametrize("link", ["tcp://10.96.3.7:9090", "udp://[fd00::1]:53"])
def test_n6_what_kubernetes_makes_of_service_names(variable, link):
    options, (notice,) = parse([], {variable: link})
    assert options == Options()
    assert f"environment variable {variable}={link} is ignored: Kubernetes" in notice
    flag = "--" + variable.lower().replace("_", "-")
    assert flag in refused([f"{flag}={link}"])  # who writes it there means it
    assert variable in refused([], {variable: "http://10.96.3.7:9090"})


@pytest.mark.parametrize("variable", TGI_VARIABLES)
def test_variable_of_tgi_is_worth_a_warning(variable):
    options, (notice,) = parse([], {variable: "1"})
    assert options == Options() and variable in notice
    assert parse([], {variable: ""}) == (Options(), [])


def test_scaling_of_positions_as_an_object():
    argv = ["--rope-scaling", ' {"rope_type": "yarn", "factor": 4.0}']
    assert parse(argv, {})[0].rope_scaling == {"rope_type": "yarn", "factor": 4.0}


@pytest.mark.parametrize("name", ["kv-cache-memory", "leave-free", "payload-limit"])
def test_the_rule_of_a_size_names_its_unit(name):
    assert f"--{name}: must be a whole number of bytes from" in refused([f"--{name}", "10GiB"])


def test_objects_of_any_depth_are_read_or_refused():
    assert "must be a JSON object" in refused(["--hf-overrides", '{"a":' * 100_000])


def test_lists():
    expected = ("https://a.example", "https://b.example")
    flags = ["--cors-allow-origin", expected[0], "--cors-allow-origin", expected[1]]
    assert parse(flags, {})[0].cors_allow_origin == expected
    assert parse(["--cors-allow-origin", ", ".join(expected)], {})[0].cors_allow_origin == expected
    both = ["--metric-names", "vllm,sglang", "--metric-names", "tgi"]
    assert parse(both, {})[0].metric_names == ("vllm", "sglang", "tgi")
    assert parse(["--api-key", "a,b", "--api-key", "c"], {})[0].api_key == ("a,b", "c")
    variable = {"CORS_ALLOW_ORIGIN": "https://a.example, https://b.example"}
    assert parse([], variable)[0].cors_allow_origin == expected


@pytest.mark.parametrize("argv", [["--model"], ["--no-such-option"], ["stray"], ["--port"]])
def test_unknown_or_incomplete_is_refused(argv):
    refused(argv)


def test_defaults_are_those_of_tgi():
    defaults = {name: getattr(Options(), name) for name in TGI_DEFAULTS}
    assert defaults == TGI_DEFAULTS


@pytest.mark.parametrize("unsupported", UNSUPPORTED, ids=lambda unsupported: unsupported.name)
def test_unsupported_option_is_refused_unless_harmless(unsupported):
    accepts_true = "true" in unsupported.harmless
    argv = [unsupported.flag, "7"] if unsupported.takes_value else [unsupported.flag]
    if accepts_true:
        assert parse(argv, {}) == (Options(), [])
    else:
        message = refused(argv)
        assert unsupported.flag in message and unsupported.reason in " ".join(message.split())
    if unsupported.variable:
        if not accepts_true:
            assert unsupported.variable in refused([], {unsupported.variable: "true"})
        for text in ("", *unsupported.harmless):
            assert parse([], {unsupported.variable: text}) == (Options(), [])


def test_ngrok_token_of_the_environment_is_left_alone():
    """ngrok's own tools set it; TGI reads it only together with --ngrok."""
    assert parse([], {"NGROK_AUTHTOKEN": "x"}) == (Options(), [])


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_names_everything(flag, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit) as end:
        parse([flag], {})
    assert end.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for option in OPTIONS:
        default = f" (default: {option.default_text})" if option.default_text else ""
        variable = f" [{option.variable}]" if option.variable else ""
        assert option.help.replace("`", "") in text
        assert (default + variable).replace("`", "") in text
        assert option.flag in text
    for unsupported in UNSUPPORTED:
        assert unsupported.flag in text


def test_the_page_is_the_one_that_the_options_make():
    page = (ROOT / "docs" / "options.md").read_text()
    assert markdown() in page, "run `make readme`"


def test_markdown_command():
    command = [sys.executable, "-m", "penstock_launcher.options", "--markdown"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout == markdown()


def test_given_masks_secrets():
    options = Options(api_key=("hunter22",), port=7)
    assert given(options) == {"api_key": "***", "port": 7}
