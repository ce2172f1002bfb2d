"""Options that change what the model's files say, through the real server."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

from support.server import Server, running_server

YARN = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 2048}
TEMPLATE = (
    "{% for m in messages %}<|user|>{{ m.content }}<|end|>{% endfor %}<|assistant|>{{ extra }}"
)


def asked(server: Server, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(server.url + path, data, headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def test_they_reach_whatever_reads_the_files(tmp_path: Path) -> None:
    template = tmp_path / "chat.txt"
    template.write_text(TEMPLATE)
    overrides = {"max_position_embeddings": 4096, "rope_scaling": YARN}
    arguments = (
        *("--hf-overrides", json.dumps(overrides), "--chat-template", str(template)),
        *("--override-generation-config", '{"top_k": 1}', "--generation-config", "none"),
        *("--default-chat-template-kwargs", '{"extra": "So"}', "--max-batch-total-tokens", "8192"),
    )
    with running_server(tmp_path, *arguments) as server:
        info = asked(server, "/info")
        assert info["max_total_tokens"] == info["max_position_embeddings"] == 4096
        assert info["sampling_defaults"] == {"top_k": 1}
        messages = [{"role": "user", "content": "What is the capital of France?"}]
        page = asked(server, "/chat_tokenize", {"messages": messages})
        assert page["templated_text"].endswith("<|end|><|assistant|>So")
        body = {"messages": messages, "chat_template_kwargs": {"extra": "The"}, "max_tokens": 7}
        said = asked(server, "/v1/chat/completions", body)["choices"][0]["message"]["content"]
        assert said == " capital of France is Paris."
        assert asked(server, "/chat_tokenize", body)["templated_text"].endswith("The")
