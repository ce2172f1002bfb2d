"""What clients of TGI, vLLM and SGLang send in a request, and what becomes of it here.

The names are theirs; whether a field is honoured is asked of the schemas that check requests, so
that the pages which are made of this (`make readme`) cannot say otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from penstock_router.api.openai_chat import ChatRequest
from penstock_router.api.openai_completion import CompletionRequest
from penstock_router.api.schema import ClientObject
from penstock_router.api.sglang_sampling import SamplingParams
from penstock_router.api.sglang_schema import SGLangRequest
from penstock_router.api.tgi_schema import GenerateParameters, GenerateRequest


@dataclass(frozen=True, slots=True)
class Fields:
    """What one route of another server takes. notes: what differs, by field."""

    title: str
    schema: type[ClientObject]
    names: tuple[str, ...]
    notes: Mapping[str, str] = field(default_factory=dict)

    def treatment(self, name: str) -> str:
        """What becomes of one of them."""
        if name in {one.alias or own for own, one in self.schema.model_fields.items()}:
            return "the same"
        if name in self.schema.IGNORED:
            return "no effect"
        if name in self.schema.UNSUPPORTED:
            return "refused, unless it asks for nothing"
        return "ignored, and named in `x-ignored-fields`"

    def table(self) -> str:
        """A row for each."""
        lines = [f"| {self.title} | here | what differs |", "|---|---|---|"]
        lines += [
            f"| `{name}` | {self.treatment(name)} | {self.notes.get(name, '-')} |"
            for name in self.names
        ]
        return "\n".join([*lines, ""])


def _fields(
    title: str, schema: type[ClientObject], names: str, notes: Mapping[str, str] = {}
) -> Fields:
    assert notes.keys() <= set(names.split())
    return Fields(title, schema, tuple(names.split()), notes)


CHAT_OF_OPENAI = (
    "model messages frequency_penalty logit_bias logprobs top_logprobs max_tokens "
    "max_completion_tokens n presence_penalty stop stream seed temperature top_p tools tool_choice "
    "response_format stream_options"
)
NO_SUFFIX = "422 unless empty, as there"
OPENAI_BIAS = "a map from token ids to numbers, and is honoured"
FIELDS: Mapping[str, tuple[Fields, ...]] = {
    "TGI": (
        _fields("body of /generate", GenerateRequest, "inputs parameters stream"),
        _fields(
            "field of parameters",
            GenerateParameters,
            "best_of temperature repetition_penalty frequency_penalty top_k top_p typical_p "
            "do_sample max_new_tokens return_full_text stop truncate watermark details "
            "decoder_input_details seed top_n_tokens grammar adapter_id",
            {
                "top_p": "1.0 is taken, and means off",
                "typical_p": "1.0 is taken, and means off",
                "decoder_input_details": "needs no flag",
                "max_new_tokens": "the whole answer is one request; nothing is computed twice",
                "grammar": "schemas need no `properties`; what is not enforced exactly is 422",
            },
        ),
        _fields(
            "/v1/chat/completions",
            ChatRequest,
            f"{CHAT_OF_OPENAI} tool_prompt guideline",
            {
                "model": "an unknown name is no adapter",
                "logit_bias": OPENAI_BIAS,
                "n": "honoured, up to 128",
                "presence_penalty": "OpenAI's, not TGI's repetition penalty",
                "tools": "several calls, with ids of their own; beside `response_format` too",
                "stop": "16, or `--max-stop-sequences` if that is more; not in the text",
                "top_logprobs": "up to 20",
            },
        ),
        _fields(
            "/v1/completions",
            CompletionRequest,
            "model prompt max_tokens temperature top_p stream seed suffix repetition_penalty "
            "frequency_penalty stop",
            {"prompt": "up to 128 of them, and token ids", "suffix": NO_SUFFIX},
        ),
    ),
    "vLLM": (
        _fields(
            "/v1/chat/completions",
            ChatRequest,
            f"{CHAT_OF_OPENAI} user parallel_tool_calls reasoning_effort include_reasoning top_k "
            "min_p repetition_penalty length_penalty use_beam_search stop_token_ids bad_words "
            "include_stop_str_in_output ignore_eos min_tokens skip_special_tokens "
            "spaces_between_special_tokens truncate_prompt_tokens allowed_token_ids "
            "prompt_logprobs echo add_generation_prompt continue_final_message add_special_tokens "
            "documents chat_template chat_template_kwargs structured_outputs structural_tag "
            "guided_json guided_regex guided_choice guided_grammar priority request_id "
            "return_tokens_as_token_ids return_token_ids cache_salt",
            {
                "stop": "16, or `--max-stop-sequences` if that is more",
                "n": "up to 128",
                "priority": "-100 to 100, and larger is sooner: the other way round",
                "guided_json": "as `structured_outputs`, which vLLM took in its place",
                "structured_outputs": "what is not enforced exactly is 422",
                "top_logprobs": "up to 20",
            },
        ),
        _fields(
            "/v1/completions",
            CompletionRequest,
            "model prompt echo frequency_penalty logit_bias logprobs max_tokens n best_of "
            "presence_penalty seed stop stream stream_options suffix temperature top_p user "
            "use_beam_search top_k min_p repetition_penalty length_penalty stop_token_ids "
            "include_stop_str_in_output ignore_eos min_tokens skip_special_tokens "
            "spaces_between_special_tokens truncate_prompt_tokens allowed_token_ids "
            "prompt_logprobs prompt_embeds add_special_tokens response_format structured_outputs "
            "priority request_id return_tokens_as_token_ids return_token_ids cache_salt",
            {
                "prompt": "up to 128 of them",
                "suffix": NO_SUFFIX,
                "max_tokens": "without it, all the room there is",
                "best_of": "vLLM has it no longer",
                "priority": "-100 to 100, and larger is sooner: the other way round",
            },
        ),
    ),
    "SGLang": (
        _fields(
            "body of /generate",
            SGLangRequest,
            "text input_ids sampling_params rid return_logprob logprob_start_len top_logprobs_num "
            "token_ids_logprob return_text_in_logprobs stream extra_key priority input_embeds "
            "image_data video_data audio_data lora_path session_params custom_logit_processor "
            "return_hidden_states log_metrics conversation_id background no_logs",
            {"top_logprobs_num": "up to 20", "text": "up to 4,096 of them"},
        ),
        _fields(
            "field of sampling_params",
            SamplingParams,
            "max_new_tokens min_new_tokens n stop stop_token_ids stop_regex temperature top_p "
            "top_k min_p frequency_penalty presence_penalty repetition_penalty ignore_eos "
            "skip_special_tokens spaces_between_special_tokens no_stop_trim regex json_schema ebnf "
            "structural_tag logit_bias sampling_seed stream_interval custom_params beam_width",
            {
                "n": "up to 128; SGLang's frontend, which breaks on a list, gets one object",
                "ebnf": "GBNF or Lark",
                "stop": "16, or `--max-stop-sequences` if that is more",
            },
        ),
        _fields(
            "/v1/chat/completions",
            ChatRequest,
            f"{CHAT_OF_OPENAI} top_k min_p min_tokens repetition_penalty stop_token_ids "
            "ignore_eos skip_special_tokens continue_final_message chat_template_kwargs "
            "reasoning_effort separate_reasoning regex ebnf lora_path rid",
            {
                "separate_reasoning": "reasoning is always apart",
                "ebnf": "GBNF or Lark",
                "rid": "give `request_id` instead",
            },
        ),
    ),
}


def tables(server: str) -> str:
    """All of one server, one behind the other."""
    return "\n".join(one.table() for one in FIELDS[server])
