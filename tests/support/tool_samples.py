"""What models of each format write for the same calls, as their templates and papers show it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from penstock_router.tools.dialect import Dialect
from penstock_router.tools.events import Event, Reply, joined
from penstock_router.tools.formats import NAMED
from penstock_router.tools.parser import ReplyParser

# Every marker that looks like a token, as vocabularies have them.
MARKERS = re.compile(r"<\|?[^<>\n\"]{1,40}\|?>|\[/?[A-Z_]+\]|<｜[^｜]+｜>|<\|\"\|>")


WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "wind": {"type": "boolean"},
        "near": {"type": "array", "items": {"type": "string"}},
        "units": {"type": "object"},
    },
    "required": ["city"],
}
TOOLS: dict[str, dict[str, Any]] = {
    "weather": WEATHER,
    "get_time": {"type": "object", "properties": {}},
}
CITY = 'São "Paulo"\nBrasil'
FULL = {"city": CITY, "days": 3, "wind": True, "near": ["a b", "c"], "units": {"t": "C"}}
_JSON = json.dumps(FULL, ensure_ascii=False)
_NEAR = json.dumps(FULL["near"])
_PYTHON = f"weather(city={CITY!r}, days=3, wind=True, near=['a b', 'c'], units={{'t': 'C'}})"


@dataclass(frozen=True)
class Sample:
    """An answer of two calls: `weather` with FULL, then `get_time` without arguments."""

    format: str
    text: str
    before: str = ""  # text before the calls
    second: bool = True
    tokens: tuple[str, ...] = ()  # of the vocabulary, besides those that the format names


def _calls(arguments: str = "arguments", name: str = "name") -> list[str]:
    return [
        f'{{"{name}": "weather", "{arguments}": {_JSON}}}',
        f'{{"{name}": "get_time", "{arguments}": {{}}}}',
    ]


def _xml(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


_CODER = "\n".join(f"<parameter={k}>\n{_xml(v)}\n</parameter>" for k, v in FULL.items())
_GLM = "\n".join(
    f"<arg_key>{k}</arg_key>\n<arg_value>{_xml(v)}</arg_value>" for k, v in FULL.items()
)
_MINIMAX = "\n".join(f'<parameter name="{k}">{_xml(v)}</parameter>' for k, v in FULL.items())
_DSML = "\n".join(
    f'<｜DSML｜parameter name="{k}" string="{str(isinstance(v, str)).lower()}">{_xml(v)}'
    "</｜DSML｜parameter>"
    for k, v in FULL.items()
)
_M3 = "]<]minimax[>["
_K3 = "".join(
    f'<|open|>argument key="{k}" type="{"string" if isinstance(v, str) else "json"}"<|sep|>'
    f"{_xml(v)}<|close|>argument<|sep|>"
    for k, v in FULL.items()
)


def _gemma(delimiter: str) -> str:
    def text(value: str) -> str:
        return delimiter + value + delimiter

    near = ",".join(map(text, ("a b", "c")))
    return f"{{city:{text(CITY)},days:3,wind:true,near:[{near}],units:{{t:{text('C')}}}}}"


SAMPLES = (
    Sample("llama3_json", "; ".join(_calls("parameters"))),
    Sample("llama3_json", "<|python_tag|>" + "; ".join(_calls("parameters"))),
    Sample("llama3_json", "\n" + _calls("parameters")[0], second=False),
    Sample("llama4_pythonic", f"[{_PYTHON}, get_time()]"),
    Sample("llama4_pythonic", f"<|python_start|>[{_PYTHON}, get_time()]<|python_end|>"),
    Sample("pythonic", f"[{_PYTHON}, get_time()]"),
    Sample("lfm2", f"Look:<|tool_call_start|>[{_PYTHON}, get_time()]<|tool_call_end|>", "Look:"),
    Sample(
        "hermes",
        "I look.\n"
        + "\n".join(f"<tool_call>\n{call}\n</tool_call>" for call in _calls()),
        "I look.",
    ),
    Sample(
        "qwen3_coder",
        "Well\n\n<tool_call>\n<function=weather>\n" + _CODER + "\n</function>\n</tool_call>\n"
        "<tool_call>\n<function=get_time>\n</function>\n</tool_call>",
        "Well",
    ),
    Sample(
        "seed_oss",
        "<seed:tool_call>\n<function=weather>\n" + _CODER + "\n</function>\n"
        "<function=get_time>\n</function>\n</seed:tool_call>",
    ),
    Sample("mistral_v3", "[TOOL_CALLS] [" + ", ".join(_calls()) + "]"),
    Sample("mistral", f"On it.[TOOL_CALLS]weather[ARGS]{_JSON}[TOOL_CALLS]get_time[ARGS]{{}}",
           "On it."),
    Sample(
        "mistral",
        f"[TOOL_CALLS]weather[CALL_ID]abcdefghi[ARGS]{_JSON}[TOOL_CALLS]get_time[ARGS]{{}}",
    ),
    Sample(
        "deepseek_v3",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n"
        + _JSON
        + "\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>get_time\n```json\n"
        "{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    ),
    Sample(
        "deepseek_v31",
        "Hm <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>" + _JSON
        + "<｜tool▁call▁end｜><｜tool▁call▁begin｜>get_time<｜tool▁sep｜>{}<｜tool▁call▁end｜>"
        "<｜tool▁calls▁end｜>",
        "Hm",
    ),
    *(
        Sample(
            name,
            f'Now.\n\n<｜DSML｜{section}>\n<｜DSML｜invoke name="weather">\n' + _DSML
            + '\n</｜DSML｜invoke>\n<｜DSML｜invoke name="get_time">\n</｜DSML｜invoke>\n'
            f"</｜DSML｜{section}>",
            "Now.",
        )
        for name, section in (("deepseek_v32", "function_calls"), ("deepseek_v4", "tool_calls"))
    ),
    Sample(
        "deepseek_v41",
        'Now.\n\n<｜DSML｜ calls>\n<｜DSML｜ invoke name="weather">\n'
        + _DSML.replace("｜DSML｜", "｜DSML｜ ")
        + '\n</｜DSML｜ invoke>\n<｜DSML｜ invoke name="get_time">\n</｜DSML｜ invoke>\n'
        "</｜DSML｜ calls>",
        "Now.",
    ),
    Sample(
        "cohere_command_r",
        "I look.\nAction:\n```json\n[\n    "
        + ",\n    ".join(_calls("parameters", "tool_name"))
        + "\n]```",
        "I look.",
    ),
    Sample(
        "cohere_command_r",
        "Action: ```json\n[" + ", ".join(_calls("parameters", "tool_name")) + "]\n```",
    ),
    Sample("phi4_mini_json", "functools[" + ", ".join(_calls()) + "]"),
    Sample("granite", "<|tool_call|>[" + ", ".join(_calls()) + "]"),
    Sample("granite", "<tool_call>[" + ", ".join(_calls()) + "]"),
    Sample("granite-20b-fc", "".join(f"<function_call> {call}" for call in _calls())),
    Sample("nemotron_v2", "<TOOLCALL>[" + ", ".join(_calls()) + "]</TOOLCALL>"),
    Sample("apriel", "<tool_calls>[" + ", ".join(_calls()) + "]</tool_calls>"),
    Sample(
        "cohere",
        "<|START_ACTION|>[\n"
        + ",\n".join(
            call.replace("{", '{"tool_call_id": "0", ', 1)
            for call in _calls("parameters", "tool_name")
        )
        + "\n]<|END_ACTION|>",
    ),
    Sample(
        "kimi_k2",
        "Yes.<|tool_calls_section_begin|><|tool_call_begin|>functions.weather:0"
        "<|tool_call_argument_begin|>" + _JSON + "<|tool_call_end|><|tool_call_begin|>"
        "functions.get_time:1<|tool_call_argument_begin|>{}<|tool_call_end|>"
        "<|tool_calls_section_end|>",
        "Yes.",
    ),
    Sample(
        "kimi_k3",
        '<|open|>tools<|sep|><|open|>call tool="weather" index="1"<|sep|>' + _K3
        + '<|close|>call<|sep|><|open|>call tool="get_time" index="2"<|sep|><|close|>call<|sep|>'
        "<|close|>tools<|sep|><|close|>message<|sep|>",
    ),
    Sample(
        "glm45",
        "Sure\n<tool_call>weather\n" + _GLM + "\n</tool_call>\n<tool_call>get_time\n</tool_call>",
        "Sure",
    ),
    Sample("glm45", "<tool_call>weather" + _GLM + "</tool_call><tool_call>get_time</tool_call>"),
    Sample(
        "minimax_m2",
        '<minimax:tool_call>\n<invoke name="weather">\n' + _MINIMAX + "\n</invoke>\n"
        '<invoke name="get_time">\n</invoke>\n</minimax:tool_call>',
    ),
    Sample("gemma4", "<|tool_call>call:weather" + _gemma('<|"|>') + "<tool_call|>"
           "<|tool_call>get_time{}<tool_call|>"),
    Sample("functiongemma", "<start_function_call>call:weather" + _gemma("<escape>")
           + "<end_function_call><start_function_call>call:get_time{}<end_function_call>"),
    Sample(
        "harmony",
        "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant"
        "<|channel|>commentary to=functions.weather <|constrain|>json<|message|>" + _JSON
        + "<|call|><|start|>assistant to=functions.get_time<|channel|>commentary json<|message|>"
        "{}<|call|>",
        "I look.",
    ),
    Sample(
        "minimax_m3",
        'Now.\n~<tool_call>\n~<invoke name="weather">~<city>'.replace("~", _M3) + CITY
        + "~</city>~<days>3~</days>~<wind>true~</wind>~<near>~<item>a b~</item>~<item>c~</item>"
        "~</near>~<units>~<t>C~</t>~</units>~</invoke>\n".replace("~", _M3)
        + '~<invoke name="get_time">~</invoke>\n~</tool_call>'.replace("~", _M3),
        "Now.",
    ),
    Sample(
        "hy_v3",
        "Sure<tool_calls:opensource>\n<tool_call:opensource>weather<tool_sep:opensource>\n"
        + re.sub("(arg_key|arg_value)", r"\1:opensource", _GLM)
        + "\n</tool_call:opensource>\n<tool_call:opensource>get_time<tool_sep:opensource>\n"
        "</tool_call:opensource>\n</tool_calls:opensource>",
        "Sure",
    ),
    Sample(
        "solar_open",
        "<|content|>Hm.<|end|><|begin|>assistant<|tool_calls|><|tool_call:begin|>abcdefgh12"
        "<|tool_call:name|>weather<|tool_call:args|>" + _JSON + "<|tool_call:end|>"
        "<|tool_call:begin|>abcdefgh13<|tool_call:name|>get_time<|tool_call:args|>{}"
        "<|tool_call:end|><|calls|>",
        "Hm.",
    ),
    Sample(
        "apertus",
        f'Hm.<|tools_prefix|>[{{"weather": {_JSON}}}, {{"get_time": {{}}}}]<|tools_suffix|>',
        "Hm.",
    ),
    Sample("json", "\n".join(_calls())),
)  # fmt: skip


def dialect(name: str, tokens: tuple[str, ...] = (), reasoning: Any = None) -> Dialect:
    """A format for a vocabulary with these tokens, the first half of which are special."""
    ids = {token: 1000 + place for place, token in enumerate(tokens)}
    special = frozenset(list(ids.values())[: len(ids) // 2])
    return Dialect(NAMED[name], reasoning, ids, special)


def parse(
    chosen: Dialect,
    pieces: list[str],
    tools: dict[str, dict[str, Any]] | None = None,
    thinking: bool = False,
) -> Reply:
    """What pieces of an answer come to; each is encoded by itself, as tokens are."""
    return joined(events(chosen, pieces, tools, thinking))


def events(
    chosen: Dialect,
    pieces: list[str],
    tools: dict[str, dict[str, Any]] | None = None,
    thinking: bool = False,
) -> list[Event]:
    """The same as events."""
    parser = ReplyParser(chosen, TOOLS if tools is None else tools, thinking=thinking)
    found: list[Event] = []
    for piece in pieces:
        found += parser.feed(piece)
    return found + parser.end()
