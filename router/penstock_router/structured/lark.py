"""Lark grammars as users write them, and llama.cpp's (GBNF), as the text that is compiled."""

from __future__ import annotations

import re

from llguidance.gbnf_to_lark import gbnf_to_lark

from penstock_router.grammar import Grammar, GrammarKind
from penstock_router.request import BadGrammar

MAX_CHARACTERS = 32_768
MAX_RULES = 2048

# Names that grammars use as if Lark had them.
PREDEFINED = {
    "NAME": "NAME: /[A-Za-z_][A-Za-z0-9_]*/",
    "NEWLINE": r"NEWLINE: /\r?\n/",
    "NUMBER": r"NUMBER: /[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?/",
    "STRING": r'STRING: /"(\\[^\r\n]|[^"\\\r\n])*"/',
    "WS": r"WS: /[ \t\f\r\n]{1,16}/",
}
# Tokens that Lark's post-lexer makes of white space; no context-free grammar can.
INDENTATION = ("INDENT", "DEDENT", "_INDENT", "_DEDENT")
# Those of Lark's library that llguidance has too.
COMMON = frozenset(
    """CNAME DECIMAL DIGIT ESCAPED_STRING FLOAT HEXDIGIT INT LCASE_LETTER LETTER NEWLINE NUMBER
    SIGNED_FLOAT SIGNED_INT SIGNED_NUMBER UCASE_LETTER WORD WS WS_INLINE""".split()  # noqa: SIM905
)

# The text is a client's, and an expression holds the interpreter's lock for as long as it searches.
# So each of these reads a character once: repeats give nothing back (`*+`), and what has no end is
# taken up to the end of its line.

# What holds no names: strings, regular expressions, comments, special tokens.
_OPAQUE = re.compile(
    r'"(?:\\.|[^"\\\n])*+(?:"i?)?|/(?!/)(?:\\.|[^/\\\n])++(?:/[imslux]*+)?|//[^\n]*+|#[^\n]*+|'
    r"<[^<>\s]++>"
)
_DEFINITION = re.compile(
    r"^[ \t]*+[?!]?([A-Za-z_]\w*+)[ \t]*+(?:\.-?\d++)?(?:\[[^\]\n]*+\])?[ \t]*+:", re.M
)
_IMPORT = re.compile(
    r"^[ \t]*+%import[ \t]++(\w++)(?:\.(\w++|\*)(?:[ \t]*+->[ \t]*+(\w++))?|[ \t]*+\(([^()%]*+)\))",
    re.M,
)
_IMPORT_ALL = re.compile(r"^[ \t]*+%import[ \t]++common\.\*[ \t]*+$", re.M)
_TEMPLATE = re.compile(r"^[ \t]*+[?!]?([A-Za-z_]\w*+)[ \t]*+\{[^}\n]*+\}[ \t]*+:", re.M)
_NAME = re.compile(r"(?<![\w@%$])[A-Za-z_]\w*+")
_ALIAS = re.compile(r"->[ \t]*+\w++")
_BRACES = re.compile(r"%(?:json|regex|lark|llguidance)\b\s*+")
_BRACE = re.compile(r"[{}]")


def is_gbnf(text: str) -> bool:
    """As vLLM tells them apart: only GBNF has `::=`."""
    return "::=" in _OPAQUE.sub(" ", text)


def check_length(text: str) -> None:
    """Raises ValueError with the end of a sentence that begins with the field's name."""
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"must have at most {MAX_CHARACTERS} characters. Given: {len(text)}")


def converted(grammar: Grammar) -> Grammar:
    """A grammar in GBNF in Lark's notation. Takes up to two seconds. Raises BadGrammar."""
    try:
        return Grammar(GrammarKind.LARK, gbnf_to_lark(grammar.text))
    except Exception as error:  # the converter raises its own kinds, and what slips
        lines = str(error).splitlines() or [type(error).__name__]
        raise BadGrammar(f"it is not a grammar in GBNF: {lines[0][:200]}") from None


def lark_text(text: str) -> str:
    """The text of a Lark grammar with the names that Lark has ready defined, or imported. Raises
    ValueError with the end of a sentence that begins with the field's name."""
    bare = _OPAQUE.sub(" ", text)
    defined = set(_DEFINITION.findall(bare))
    if len(defined) > MAX_RULES:
        raise ValueError(f"must have at most {MAX_RULES} rules. Given: {len(defined)}")
    if template := _TEMPLATE.search(bare):
        raise ValueError(
            f"has the template `{template[1][:64]}`: templates are not supported, write a rule for "
            "each use of it"
        )
    if "start" not in defined:
        raise ValueError("must have a rule `start`, or in GBNF a rule `root ::=`")
    used = _used(bare)
    missing = used - defined - _imported(bare)
    lines: list[str] = []
    if _IMPORT_ALL.search(bare):
        lines += [f"%import common.{name}" for name in sorted(missing & COMMON)]
        missing -= COMMON
        text = _IMPORT_ALL.sub("", text)
    lines += [PREDEFINED[name] for name in sorted(missing & PREDEFINED.keys())]
    missing -= PREDEFINED.keys()
    if missing:
        raise ValueError(_about(missing))
    return "\n".join([text, *lines, ""])


def _about(missing: set[str]) -> str:
    """What is said of names that nobody defines."""
    indentation = [f"`{name}`" for name in INDENTATION if name in missing]
    names = [f"`{name[:64]}`" for name in sorted(missing - set(INDENTATION))[:32]]
    sentences = []
    if names:
        sentences.append(f"uses names that it does not define: {', '.join(names)}")
    if indentation:
        sentences.append(
            f"uses {' and '.join(indentation)}, but indentation is counted by a post-lexer of "
            "Lark's, which no grammar can express: write the white space itself, for example "
            'NEWLINE "    "'
        )
    return ". It ".join(sentences)


def _imported(bare: str) -> set[str]:
    names: set[str] = set()
    for _, one, alias, several in _IMPORT.findall(bare):
        names.update(_NAME.findall(several) if several else [alias or one])
    return names


def _used(bare: str) -> set[str]:
    """Names on the right sides of rules, and what is ignored."""
    used: set[str] = set()
    for line in _ALIAS.sub(" ", _without_braces(bare)).splitlines():
        stripped = line.strip()
        if stripped.startswith("%ignore"):
            used.update(_NAME.findall(stripped[len("%ignore") :]))
        elif not stripped.startswith("%"):
            used.update(_NAME.findall(_DEFINITION.sub(" ", line)))
    return used


def _without_braces(bare: str) -> str:
    """Without schemas and grammars in other languages that stand in it."""
    kept, done = [], 0
    while match := _BRACES.search(bare, done):
        kept.append(bare[done : match.start()])
        done = _behind_braces(bare, match.end())
    return " ".join([*kept, bare[done:]])


def _behind_braces(bare: str, start: int) -> int:
    """Where what stands in braces ends; `start` where there are none."""
    if not bare.startswith("{", start):
        return start
    depth = 0
    for brace in _BRACE.finditer(bare, start):
        depth += 1 if brace[0] == "{" else -1
        if not depth:
            return brace.end()
    return len(bare)
