"""TGI's docker run lines and compose file, as users have them, but for the name of the image."""

from __future__ import annotations

import re
import shlex

import pytest
import yaml

from launcher.test_options import refused
from penstock_launcher.command_line import parse
from penstock_launcher.options import OPTIONS, Options
from support.assets import assets

SEEDS = assets().parent / "seeds"
IMAGE = "ghcr.io/huggingface/text-generation-inference:latest"
OURS = {"PORT": "80", "HF_HOME": "/data", "HOSTNAME": "3f2a9c0d1e4b"}  # Dockerfile, and Docker


def seeds() -> list[str]:
    if not SEEDS.is_dir():
        pytest.skip(f"{SEEDS} is not there")
    # in one of them the next heading follows on the last line of a command
    texts = [path.read_text() for path in sorted(SEEDS.glob("00[01]_*.txt"))]
    return [re.sub(r"(?<=[a-z0-9])\d\. [A-Z].*", "", text) for text in texts]


def accepted(arguments: list[str], environment: dict[str, str]) -> Options:
    """What the launcher makes of it; a format of weights that is not built may be refused."""
    quantize = next(option for option in OPTIONS if option.name == "quantize")
    if "--quantize" in arguments:
        place = arguments.index("--quantize")
        try:
            quantize.kind.parse(arguments[place + 1])
        except ValueError:
            assert "--quantize" in refused(arguments, environment)
            arguments = arguments[:place] + arguments[place + 2 :]
    options, notices = parse(arguments, environment)
    assert len(notices) == 1 and "HOSTNAME" in notices[0]
    assert options.port == 80 and options.hostname == "0.0.0.0"
    return options


def test_docker_run() -> None:
    found = 0
    for text in seeds():
        for command in re.findall(r"docker run (?:.*\\\n)+.*", text):
            words = shlex.split(command.replace("\\\n", " "))
            place = words.index(IMAGE)
            environment = dict(
                words[n + 1].split("=", 1) for n in range(place) if words[n] in ("-e", "--env")
            )
            assert "8080:80" in words[:place]
            options = accepted(words[place + 1 :], OURS | environment)
            assert options.model_id
            found += 1
    assert found >= 6


def test_compose() -> None:
    found = 0
    for text in seeds():
        match = re.search(r"^# docker-compose.yml\n(.*?)^Code Fragment", text, re.S | re.M)
        if match is None:
            continue  # one of the two has lost its indentation
        service = yaml.safe_load(match[1])["services"]["tgi"]
        environment = dict(one.split("=", 1) for one in service["environment"])
        options = accepted(shlex.split(service["command"]), OURS | environment)
        assert (options.max_input_tokens, options.max_total_tokens) == (2048, 4096)
        assert options.max_concurrent_requests == 128
        assert service["healthcheck"]["test"][:2] == ["CMD", "curl"]
        assert service["healthcheck"]["test"][-1] == f"http://localhost:{options.port}/health"
        found += 1
    assert found >= 1
