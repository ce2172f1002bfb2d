"""How families of models write tool calls: one row each."""

from __future__ import annotations

from penstock_router.tools.format import Format, Ids
from penstock_router.tools.styles.channels import Channels
from penstock_router.tools.styles.elements import Elements
from penstock_router.tools.styles.json_calls import Header, JsonCall
from penstock_router.tools.styles.notations import Pythonic, Unquoted
from penstock_router.tools.styles.tagged import Tagged

_DEEPSEEK = ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>")
_DSML = Tagged(
    name_end='">', key_open='<｜DSML｜parameter name="', key_end='"', attribute='" string="',
    attribute_end='">', raw="true", other="false",
    value_end="</｜DSML｜parameter>", close="</｜DSML｜invoke>", line="\n",
)  # fmt: skip
_SPACED_DSML = _DSML.encoded(lambda text: text.replace("｜DSML｜", "｜DSML｜ "))
_XML = Tagged(
    name_end=">", key_open="<parameter=", key_end=">", value_end="</parameter>",
    close="</function>", padded=True, line="\n",
)  # fmt: skip

# The first row that recognises a template is taken, so what is particular comes first.
# fmt: off
FORMATS: tuple[Format, ...] = (
    Format(
        "harmony",
        Channels(message="<|message|>", call=" <|constrain|>json",
                 ends=("<|end|>", "<|call|>", "<|return|>", "<|start|>")),
        opens=("<|channel|>", "<|start|>assistant", " to="),
        strays=("<|start|>", "<|end|>", "<|call|>", "<|return|>"),
        between=None,
        wraps=True,
        names=("openai", "gpt-oss", "gpt_oss"),
        template=r"<\|channel\|>",
    ),
    Format(
        "gemma4",
        Unquoted(before="call:", delimiter='<|"|>', close="<tool_call|>"),
        opens=("<|tool_call>",),
        template=r"<\|tool_call>",
    ),
    Format(
        "functiongemma",
        Unquoted(before="call:", delimiter="<escape>", close="<end_function_call>"),
        opens=("<start_function_call>",),
        template=r"<start_function_call>",
    ),
    Format(
        "kimi_k3",
        Tagged(
            name_end='" index="', head_end='"<|sep|>',
            key_open='<|open|>argument key="', key_end='"',
            attribute='" type="', attribute_end='"<|sep|>', raw="string", other="json",
            value_end="<|close|>argument<|sep|>", close="<|close|>call<|sep|>",
        ),
        opens=('<|open|>call tool="',),
        strays=("<|open|>response<|sep|>", "<|close|>response<|sep|>", "<|open|>tools<|sep|>",
                "<|close|>tools<|sep|>", "<|close|>message<|sep|>"),
        wraps=True,
        section=("<|open|>tools<|sep|>", "<|close|>tools<|sep|>"),
        template=r"<\|open\|>",
    ),
    Format(
        "kimi_k2",
        Header(separator="<|tool_call_argument_begin|>", prefix="functions.", counter=":",
               close="<|tool_call_end|>"),
        opens=("<|tool_call_begin|>",),
        strays=("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"),
        section=("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"),
        ids=Ids.OWN,
        template=r"<\|tool_calls_section_begin\|>",
    ),
    Format(
        "deepseek_v41",
        _SPACED_DSML,
        opens=('<｜DSML｜ invoke name="',),
        strays=("<｜DSML｜ calls>", "</｜DSML｜ calls>"),
        section=("<｜DSML｜ calls>\n", "\n</｜DSML｜ calls>"),
        between="\n",
        names=("deepseekv41",),
        template=r"(?s)DSML.* calls>",
    ),
    Format(
        "deepseek_v32",
        _DSML,
        opens=('<｜DSML｜invoke name="',),
        strays=("<｜DSML｜function_calls>", "</｜DSML｜function_calls>"),
        section=("<｜DSML｜function_calls>\n", "\n</｜DSML｜function_calls>"),
        between="\n",
        names=("deepseekv32",),
        template=r"(?s)DSML.*function_calls",
    ),
    Format(
        "deepseek_v4",
        _DSML,
        opens=('<｜DSML｜invoke name="',),
        strays=("<｜DSML｜tool_calls>", "</｜DSML｜tool_calls>"),
        section=("<｜DSML｜tool_calls>\n", "\n</｜DSML｜tool_calls>"),
        between="\n",
        names=("deepseekv4",),
        template=r"DSML",
    ),
    Format(
        "deepseek_v3",
        Header(before="function<｜tool▁sep｜>", separator="\n```json\n",
               close="\n```<｜tool▁call▁end｜>"),
        opens=("<｜tool▁call▁begin｜>",),
        strays=_DEEPSEEK,
        section=_DEEPSEEK,
        between="\n",
        names=("deepseekv3",),
        template=r"(?s)<｜tool▁calls▁begin｜>.*```json",
    ),
    Format(
        "deepseek_v31",
        Header(separator="<｜tool▁sep｜>", close="<｜tool▁call▁end｜>"),
        opens=("<｜tool▁call▁begin｜>",),
        strays=_DEEPSEEK,
        section=_DEEPSEEK,
        names=("deepseekv31",),
        template=r"<｜tool▁calls▁begin｜>",
    ),
    Format(
        "cohere",
        JsonCall(name="tool_name", arguments="parameters", many=True,
                 counter="tool_call_id", close="<|END_ACTION|>"),
        opens=("<|START_ACTION|>",),
        strays=("<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>"),
        wraps=True,
        names=("cohere_command3", "cohere_command4"),
        template=r"<\|START_ACTION\|>",
    ),
    Format(
        "cohere_command_r",
        JsonCall(name="tool_name", arguments="parameters", many=True, close="```"),
        opens=("Action:\n```json", "Action: ```json"),
        pads=("\n", ""),
        template=r"Action:\\n```json",
    ),
    Format(
        "mistral",
        Header(separator="[ARGS]", ident="[CALL_ID]"),
        opens=("[TOOL_CALLS]",),
        ids=Ids.SHORT,
        template=r"(?s)\[TOOL_CALLS\].*\[ARGS\]",
    ),
    Format(
        "mistral_v3",
        JsonCall(many=True),
        opens=("[TOOL_CALLS]",),
        ids=Ids.SHORT,
        template=r"\[TOOL_CALLS\]",
    ),
    Format(
        "minimax_m3",
        Elements(mark="]<]minimax[>[", name_end='">', close="]<]minimax[>[</invoke>"),
        opens=(']<]minimax[>[<invoke name="',),
        strays=("]<]minimax[>[<tool_call>", "]<]minimax[>[</tool_call>"),
        section=("]<]minimax[>[<tool_call>\n", "\n]<]minimax[>[</tool_call>"),
        between="\n",
        names=("minimax-m3",),
        template=r"\]<\]minimax\[>\[",
    ),
    Format(
        "minimax_m2",
        Tagged(name_end='">', key_open='<parameter name="', key_end='">',
               value_end="</parameter>", close="</invoke>", line="\n"),
        opens=('<invoke name="',),
        strays=("<minimax:tool_call>", "</minimax:tool_call>"),
        section=("<minimax:tool_call>\n", "\n</minimax:tool_call>"),
        between="\n",
        names=("minimax-m2",),
        template=r"minimax:tool_call",
    ),
    Format(
        "glm45",
        Tagged(name_end="\n", key_open="<arg_key>", key_end="</arg_key>",
               value_open="<arg_value>", value_end="</arg_value>", close="</tool_call>",
               line="\n"),
        opens=("<tool_call>",),
        between="\n",
        names=("glm", "glm47"),
        template=r"<arg_key>",
    ),
    Format(
        "hy_v3",
        Tagged(name_end="<tool_sep:opensource>", key_open="<arg_key:opensource>",
               key_end="</arg_key:opensource>", value_open="<arg_value:opensource>",
               value_end="</arg_value:opensource>", close="</tool_call:opensource>", line="\n"),
        opens=("<tool_call:opensource>",),
        strays=("<tool_calls:opensource>", "</tool_calls:opensource>"),
        section=("<tool_calls:opensource>\n", "\n</tool_calls:opensource>"),
        between="\n",
        template=r"<tool_sep\{\}>",
    ),
    Format(
        "solar_open",
        Header(lead="<|tool_call:name|>", separator="<|tool_call:args|>",
               close="<|tool_call:end|>"),
        opens=("<|tool_call:begin|>",),
        strays=("<|begin|>assistant", "<|content|>", "<|end|>", "<|tool_calls|>", "<|calls|>"),
        section=("<|tool_calls|>", "<|calls|>"),
        wraps=True,
        ids=Ids.OWN,
        template=r"<\|tool_call:begin\|>",
    ),
    Format(
        "apertus",
        JsonCall(keyed=True, many=True, close="<|tools_suffix|>"),
        opens=("<|tools_prefix|>",),
        template=r"<\|tools_prefix\|>",
    ),
    Format(
        "seed_oss",
        _XML,
        opens=("<function=",),
        strays=("<seed:tool_call>", "</seed:tool_call>"),
        section=("<seed:tool_call>\n", "\n</seed:tool_call>"),
        between="\n",
        template=r"seed:tool_call",
    ),
    Format(
        "qwen3_coder",
        _XML,
        opens=("<function=",),
        strays=("<tool_call>", "</tool_call>"),
        section=("<tool_call>\n", "\n</tool_call>"),
        between="\n</tool_call>\n<tool_call>\n",
        names=("qwen3_xml", "nemotron_v3", "step3p5", "mimo", "granite_thinking"),
        template=r"(?s)<tool_call>.*<function=",
    ),
    Format(
        "nemotron_v2",
        JsonCall(many=True, close="</TOOLCALL>"),
        opens=("<TOOLCALL>",),
        template=r"<TOOLCALL>",
    ),
    Format(
        "apriel",
        JsonCall(many=True, close="</tool_calls>"),
        opens=("<tool_calls>",),
        template=r"<tool_calls>\[",
    ),
    Format(
        "granite",
        JsonCall(many=True),
        opens=("<|tool_call|>", "<tool_call>"),
        template=r"<\|tool_call\|>",
    ),
    Format(
        "hermes",
        JsonCall(close="</tool_call>"),
        opens=("<tool_call>",),
        between="\n",
        pads=("\n", "\n"),
        names=("qwen", "qwen25", "qwen3_json", "granite4"),
        template=r"<tool_call>",
    ),
    Format(
        "functionary",
        Header(separator=">", close="</function>"),
        opens=("<function=",),
        template=r"<function=example_function_name>\{",
    ),
    Format(
        "phi4_mini_json",
        JsonCall(many=True),
        opens=("functools",),
        names=("phi4mini",),
        template=r"functools|<\|/tool\|>",
    ),
    Format(
        "granite-20b-fc",
        JsonCall(),
        opens=("<function_call>",),
        template=r"<function_call>",
    ),
    Format(
        "llama4_pythonic",
        Pythonic(close="<|python_end|>"),
        opens=("<|python_start|>",),
        bare="[",
        strays=("<|python_end|>",),
        template=r"<\|python_start\|>",
    ),
    Format(
        "lfm2",
        Pythonic(close="<|tool_call_end|>"),
        opens=("<|tool_call_start|>",),
        template=r"<\|tool_call_start\|>|<\|tool_list_start\|>",
    ),
    Format(
        "pythonic",
        Pythonic(),
        bare="[",
        template=r"\[func_name1\(",
    ),
    Format(
        "llama3_json",
        JsonCall(arguments="parameters"),
        opens=("<|python_tag|>",),
        bare="{",
        between="; ",
        separators=";,",
        names=("llama3", "llama4_json"),
        template=r'<\|python_tag\|>|"parameters": dictionary',
    ),
    Format(
        "json",
        JsonCall(),
        bare="{",
        between="\n",
        separators=";,",
        template=r'\{"name": "',
    ),
)

NAMED = {name: row for row in FORMATS for name in (row.name, *row.names)}

# For models whose template knows nothing of tools: they are told in words what to write.
FALLBACK = NAMED["json"]

def find_format(template: str) -> Format | None:
    """The format of a chat template; None where it shows none."""
    return next((row for row in FORMATS if row.recognises(template)), None)
