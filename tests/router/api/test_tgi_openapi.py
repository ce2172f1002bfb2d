"""What TGI's own OpenAPI file (docs/openapi.json of 3.x) says: routes, fields and statuses."""

from __future__ import annotations

import json
from typing import Any

from router.api.conftest import beside_only

GENERATING = ("/", "/generate", "/generate_stream", "/invocations", "/v1/chat/completions",
              "/v1/completions")  # fmt: skip
STATUSES = {"200", "422", "424", "429", "500"}
GETS = {"/health": {"200", "503"}, "/info": {"200"}, "/metrics": {"200"}, "/v1/models": {"200"}}
REQUESTS = {
    "GenerateRequest": "inputs parameters stream",
    "GenerateParameters": (
        "best_of decoder_input_details details do_sample frequency_penalty grammar max_new_tokens "
        "repetition_penalty return_full_text seed stop temperature top_k top_n_tokens top_p "
        "truncate typical_p watermark"
    ),  # adapter_id is refused
    "ChatRequest": (
        "frequency_penalty guideline logit_bias logprobs max_tokens messages model n "
        "presence_penalty response_format seed stop stream stream_options temperature tool_choice "
        "tool_prompt tools top_logprobs top_p"
    ),
    "CompletionRequest": (
        "frequency_penalty max_tokens model prompt repetition_penalty seed stop stream suffix "
        "temperature top_p"
    ),
}
ANSWERS = {
    "GenerateResponse": "generated_text details",
    "Details": "finish_reason generated_tokens seed prefill tokens best_of_sequences top_tokens",
    "BestOfSequence": (
        "generated_text finish_reason generated_tokens seed prefill tokens top_tokens"
    ),
    "PrefillToken": "id text logprob",
    "Token": "id text logprob special",
    "StreamResponse": "index token top_tokens generated_text details",
    "StreamDetails": "finish_reason generated_tokens seed input_length",
    "ChatCompletion": "id created model system_fingerprint choices usage",
    "Completion": "id created model system_fingerprint choices usage",
}
INFO = (
    "model_id model_sha model_pipeline_tag max_concurrent_requests max_best_of max_stop_sequences "
    "max_input_tokens max_total_tokens validation_workers max_client_batch_size router version sha "
    "docker_label"
)


async def _json(client: Any, path: str) -> Any:
    status, body = await client.get(path)
    assert status == 200
    return json.loads(body)


@beside_only
async def test_routes_fields_and_statuses(serve: Any) -> None:
    client = await serve()
    document = await _json(client, "/openapi.json")
    paths, schemas = document["paths"], document["components"]["schemas"]
    for path in (*GENERATING, "/tokenize", "/chat_tokenize"):
        assert paths[path]["post"]["responses"].keys() >= STATUSES, path
    for path, statuses in GETS.items():
        assert paths[path]["get"]["responses"].keys() >= statuses, path
    for name, fields in (REQUESTS | ANSWERS).items():
        missing = set(fields.split()) - schemas[name]["properties"].keys()
        # `suffix` is read only to be refused, as in TGI without a template for it
        assert missing <= {"suffix"}, (name, missing)
    assert set(INFO.split()) <= (await _json(client, "/info")).keys()
