"""The attacks, as a table. What they are named after: C1 … M5 are the rows of the trial that found
them; the others are older kinds that the server has always held, and that it must go on holding.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from tests.attack.shots import (
    SECRET,
    Shot,
    desert,
    flood,
    hold,
    post,
    raw,
    reset,
    smuggle,
    trickle,
)

LIMIT = 1_990_000  # bytes of a body just below the default payload limit
DOUBLED = "start: r0\nr20: /a/\n" + "\n".join(f"r{n}: r{n + 1} r{n + 1}" for n in range(20))
NOTHING = b"GET /nothing HTTP/1.1\r\nHost: HOST\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Attack:
    """One row: its shots are fired one by one, and then `at_once` of them together, over and over.

    most: shots at the most, however much time is left. works: it asks for real work, more than the
    honest load does, so the canary may wait with the others or be told to come back (429, 503).
    """

    id: str
    what: str
    shots: tuple[Shot, ...]
    at_once: int = 4
    most: int = 400
    works: bool = False


def dumps(value: object) -> bytes:
    return json.dumps(value).encode()


def items(head: bytes, item: bytes, tail: bytes, size: int = LIMIT) -> Callable[[], bytes]:
    """A body of about `size` bytes: an item over and over, with commas between."""

    def build() -> bytes:
        count = (size - len(head) - len(tail)) // (len(item) + 1)
        return head + (item + b",") * (count - 1) + item + tail

    return build


def text(head: bytes, piece: bytes, tail: bytes, size: int = LIMIT) -> Callable[[], bytes]:
    """A body of about `size` bytes: a piece over and over."""
    return lambda: head + piece * ((size - len(head) - len(tail)) // len(piece)) + tail


def numbered(head: bytes, item: bytes, tail: bytes, count: int) -> Callable[[], bytes]:
    """A body of so many items that differ: `%d` in them is their number."""
    return lambda: head + b",".join(item % i for i in range(count)) + tail


def generate(inputs: object = "Hi", **parameters: object) -> Callable[[], bytes]:
    return lambda: dumps({"inputs": inputs, "parameters": {"max_new_tokens": 4, **parameters}})


def chat(content: object = "Hi", **fields: object) -> Callable[[], bytes]:
    message = {"role": "user", "content": content}
    return lambda: dumps({"messages": [message], "max_tokens": 4, **fields})


def framed(*lines: bytes, body: bytes = b"", path: bytes = b"/generate") -> bytes:
    """A request with these header lines and nothing else that one would expect."""
    return b"POST %s HTTP/1.1\r\nHost: HOST\r\n" % path + b"\r\n".join(lines) + b"\r\n\r\n" + body


SMALL = generate()()
POSTED = framed(b"Content-Type: application/json", b"Content-Length: %d" % len(SMALL), body=SMALL)
STREAMED = dumps(
    {
        "inputs": "Tell me a story.",
        "parameters": {"max_new_tokens": 1000, "ignore_eos": True, "top_n_tokens": 5},
    }
)
COMPLETIONS, CHAT, GENERATE = "/v1/completions", "/v1/chat/completions", "/generate"
PROMPTS, MESSAGES = b'{"max_tokens":1,"prompt":[', b'{"max_tokens":1,"messages":['
PART = b'{"max_tokens":1,"messages":[{"role":"user","content":['
IN_TEXT, IN_CHAT = b'{"inputs":"', b'{"max_tokens":1,"messages":[{"role":"user","content":"'

LISTS = "[" + "[]," * 400_000 + "[]]"
LITERALS = " ".join(f'"a{i}"' for i in range(3500))
MULTIPLES = [{"multipleOf": (1 + i) * 10.0 ** (300 * (-1) ** i)} for i in range(1500)]
EXCLUDING = {
    "type": "dispatch",
    "excludes": ["é" * 1000] * 250,
    "rules": [[f"r{i}", {"type": "const_string", "value": "x"}] for i in range(250)],
}


def tools(schema: dict[str, object]) -> list[object]:
    """Functions, each with an argument of this schema."""
    parameters = {"type": "object", "properties": {"a": schema, "b": {"not": {}}}}
    function = {"parameters": parameters, "strict": True}  # refused when all of it was read
    return [{"type": "function", "function": {"name": f"f{i}", **function}} for i in range(16)]


def called(arguments: str) -> dict[str, object]:
    """A conversation in which a function was called with these arguments."""
    call = {"id": "1", "function": {"name": "f", "arguments": arguments}}
    return {"messages": [{"role": "assistant", "tool_calls": [call]}], "max_tokens": 1}


BIASED = range(5, 1029)


def many(**fields: object) -> Callable[[], bytes]:
    """A body that asks for 64 short answers."""
    return lambda: dumps({"prompt": "Hi", "n": 64, "max_tokens": 2, **fields})


GETTING = b"GET %s HTTP/1.1\r\nHost: HOST\r\n\r\n"
LONG = [5 + i * 7919 % 1000 for i in range(1500)]
ECHOED = {"echo": True, "logprobs": 20, "max_tokens": 1, "n": 2}


def scored(tokens: int, given: int, prompts: int = 1, stream: bool = False) -> Callable[[], bytes]:
    """SGLang's body that asks for the log-probabilities of these at each place of its prompts."""
    ids = [[5 + (i * 7919 + place) % 1000 for i in range(tokens)] for place in range(prompts)]
    body = {
        "input_ids": ids,
        "sampling_params": {"max_new_tokens": 1},
        "return_logprob": True,
        "logprob_start_len": 0,
        "token_ids_logprob": list(range(given)),
        "stream": stream,
    }
    return lambda: dumps(body)


ATTACKS = (
    Attack(
        "C1",
        "long lists of bad prompts",
        tuple(
            post(item.decode(), COMPLETIONS, items(PROMPTS, item, b"]}"), "422")
            for item in (b"[]", b"{}", b'""', b"1.5", b"true", b"null", b"[0]", b"[[]]", b"[-1]")
        ),
    ),
    Attack(
        "C1-messages",
        "long lists of bad messages and parts",
        (
            post("messages {}", CHAT, items(MESSAGES, b"{}", b"]}"), "422"),
            post("messages null", CHAT, items(MESSAGES, b"null", b"]}"), "422"),
            post("parts {}", CHAT, items(PART, b"{}", b"]}]}"), "422"),
            post("parts 1", CHAT, items(PART, b"1", b"]}]}"), "422"),
            post(
                "messages, empty",
                CHAT,
                items(MESSAGES, b'{"role":"user","content":""}', b"]}"),
                *("200", "422"),
            ),
            post("tools {}", CHAT, items(b'{"messages":[],"tools":[', b"{}", b"]}"), "422"),
            post("tokenize", "/chat_tokenize", items(MESSAGES, b"[]", b"]}"), "422"),
        ),
    ),
    Attack(
        "C1-fields",
        "very many keys, and bad values under them",
        (
            post(
                "unknown",
                COMPLETIONS,
                numbered(b'{"prompt":"a",', b'"u%d":0', b"}", 150_000),
                "422",
            ),
            post(
                "parameters",
                GENERATE,
                numbered(b'{"inputs":"a","parameters":{', b'"u%d":0', b"}}", 150_000),
                "422",
            ),
            post(
                "in a message",
                CHAT,
                numbered(b'{"messages":[{"role":"user",', b'"u%d":0', b"}]}", 150_000),
                "422",
            ),
            post(
                "logit_bias, bad",
                COMPLETIONS,
                numbered(b'{"prompt":"a","logit_bias":{', b'"x%d":"y"', b"}}", 120_000),
                "422",
            ),
            post(
                "logit_bias, beyond",
                COMPLETIONS,
                numbered(b'{"prompt":"a","logit_bias":{', b'"9%d":1', b"}}", 120_000),
                "422",
            ),
            post(
                "stop",
                GENERATE,
                items(b'{"inputs":"a","parameters":{"stop":[', b"1", b"]}}"),
                "422",
            ),
        ),
    ),
    Attack(
        "C2",
        "token ids that do not exist",
        tuple(
            post(str(prompt)[:20], COMPLETIONS, lambda p=prompt: dumps({"prompt": p}), "422")  # type: ignore[misc]
            for prompt in ([4_000_000], [-1], [2**31], [2**63], [10**300], [[1, 2], [2**32]])
        )
        + (
            post(
                "logit_bias",
                COMPLETIONS,
                lambda: dumps({"prompt": "a", "logit_bias": {"4000000": 1}}),
                "422",
            ),
            post(
                "too many ids",
                COMPLETIONS,
                items(b'{"prompt":[', b"1", b'],"max_tokens":1}'),
                "422",
            ),
        ),
    ),
    Attack(
        "H1",
        "texts that can never fit",
        (
            post("sevens", GENERATE, text(IN_TEXT, b"7", b'"}'), "422"),
            post("control tokens", GENERATE, text(IN_TEXT, b"<|end|>", b'"}'), "422"),
            post("spaces", GENERATE, text(IN_TEXT, b" ", b'"}'), "422"),
            post("letters", COMPLETIONS, text(b'{"prompt":"', b"a", b'"}'), "422"),
            post("escapes", GENERATE, text(IN_TEXT, b"\\u4e16", b'"}'), "422"),
            post("/tokenize", "/tokenize", text(IN_TEXT, b"7", b'"}'), "200", "413", "422"),
        ),
    ),
    Attack(
        "H1-16",
        "texts that can never fit, 16 at once",
        (post("sevens", GENERATE, text(IN_TEXT, b"7", b'"}'), "422"),),
        at_once=16,
    ),
    Attack(
        "H1b",
        "messages full of what control tokens begin with",
        (
            post("[", CHAT, text(IN_CHAT, b"[", b'"}]}'), "422"),
            post("[<", CHAT, text(IN_CHAT, b"[<", b'"}]}'), "422"),
            post("<|", CHAT, text(IN_CHAT, b"<|", b'"}]}'), "422"),
            post("<|end|>", CHAT, text(IN_CHAT, b"<|end|>", b'"}]}', 200_000), "422"),
            post(
                "/chat_tokenize",
                "/chat_tokenize",
                text(IN_CHAT, b"<|user|>", b'"}]}'),
                *("200", "413", "422"),
            ),
        ),
    ),
    Attack(
        "H2",
        "templates and their variables in a request",
        (
            post("{{}}", CHAT, chat("{{ ('x'*1000000)|replace('x','y'*5000)|length }}"), "200"),
            post("{%%}", CHAT, chat("{% for i in range(10**9) %}{{ i }}{% endfor %}"), "200"),
            post("chat_template", CHAT, chat(chat_template="{{ 'x' * 10**9 }}"), "422"),
            post(
                "variables",
                CHAT,
                numbered(
                    b'{"messages":[{"role":"user","content":"Hi"}],"chat_template_kwargs":{',
                    b'"v%d":[]',
                    b"}}",
                    100_000,
                ),
                "422",
            ),
            post(
                "a long variable",
                CHAT,
                text(
                    b'{"messages":[{"role":"user","content":"Hi"}],"max_tokens":1,'
                    b'"chat_template_kwargs":{"v":"',
                    b"v",
                    b'"}}',
                ),
                *("200", "422"),
            ),
        ),
    ),
    Attack(
        "texts",
        "texts that are dear to read: grammars, patterns, JSON in strings",
        (
            post("quotes", CHAT, chat(guided_grammar='"' + '\\"' * 16_000), "422"),
            post("slashes", CHAT, chat(guided_grammar="/" + "\\/" * 16_000), "422"),
            post("blanks", CHAT, chat(guided_grammar="a" + " " * 32_000), "422"),
            post("GBNF", CHAT, chat(guided_grammar=f"root ::= {LITERALS} nothing"), "422"),
            post("many parts", CHAT, chat(structural_tag={"format": EXCLUDING}), "422"),
            post("a tag as a text", CHAT, chat(structural_tag=f'{{"structures": {LISTS}}}'), "422"),
            post("multiples", CHAT, chat(guided_json={"anyOf": MULTIPLES}), "422"),
            post(
                "schemas", CHAT, chat(guided_json={"anyOf": [{}] * 15_000 + [{"$ref": 1}]}), "422"
            ),
            post("patterns", CHAT, chat(tools=tools({"pattern": "[é-ﬀ]" * 800})), "422"),
            post("arguments", CHAT, lambda: dumps(called(f'{{"a": {LISTS}}}')), "422"),
        ),
    ),
    Attack(
        "sequences",
        "much that each of many sequences brings along",
        (
            post("words", COMPLETIONS, many(bad_words=[f"w{i} a b c" for i in range(256)]), "422"),
            post("biases", COMPLETIONS, many(logit_bias=dict.fromkeys(map(str, BIASED), 1)), "422"),
            post("allowed", COMPLETIONS, many(allowed_token_ids=[*BIASED] * 32), "422"),
            post("stops", COMPLETIONS, many(stop=["e" * 1000 + str(i) for i in range(16)]), "200"),
        ),
        at_once=1,
        most=8,
        works=True,
    ),
    Attack(
        "scores",
        "log-probabilities of everything",
        (
            post("a million", GENERATE, scored(2_000, 256), "200", "422"),
            post("too many", GENERATE, scored(2_000, 256, prompts=8), "422"),
            post("streamed", GENERATE, scored(2_000, 256, stream=True), "422"),
            post("echoed", COMPLETIONS, lambda: dumps({"prompt": LONG, **ECHOED}), "200", "422"),
        ),
        at_once=1,
        most=5,
        works=True,
    ),
    Attack(
        "metrics",
        "pages that are dear to make",
        (
            flood("/metrics", GETTING % b"/metrics", 32, "200"),
            flood("/openapi.json", GETTING % b"/openapi.json", 32, "200"),
        ),
        most=60,
    ),
    Attack(
        "grammars",
        "grammars that force long texts, or are dear with each token",
        tuple(
            post(name, CHAT, chat(**field), "200", "422", "424", "429")
            for name, field in (
                ("a pattern", {"guided_regex": "((a{60}){60}){60}"}),
                ("behind a letter", {"guided_regex": "(x|y)((a{60}){60}){60}"}),
                ("terminals", {"guided_grammar": "start: b{60}\nb: A{60}\nA: /a{3600}/"}),
                ("doubled rules", {"guided_grammar": DOUBLED}),
                ("literals", {"guided_grammar": "root ::= " + " ".join(['"a0"', '"b1"'] * 1800)}),
                ("an ambiguous one", {"guided_grammar": 's: s s | s s s | "x"\nstart: s'}),
                ("items", {"guided_json": {"items": {"const": "q" * 3600}, "minItems": 3000}}),
            )
        ),
        most=60,
    ),
    Attack(
        "L1",
        "names of the template's own variables",
        tuple(
            post(name, CHAT, chat(chat_template_kwargs={name: "x"}), *right)
            for name, *right in (
                ("self", "422"),
                ("messages", "200", "422"),
                ("loop", "200", "422"),
                ("range", "200", "422"),
                ("bos_token", "200", "422"),
                ("context", "200", "422"),
                ("__class__", "200", "422"),
                ("", "200", "422"),
            )
        ),
    ),
    Attack(
        "M1",
        "leaves with requests behind the generating one",
        (
            desert("40 requests", NOTHING * 40),
            desert("1.5 MB", framed(b"Content-Length: 1500000", body=b" " * 1_500_000)),
            desert("no more", b""),
        ),
        at_once=1,
        most=6,
        works=True,
    ),
    Attack(
        "M2",
        "150 bodies of 1.9 MB that never end",
        (
            hold(
                "unfinished",
                framed(
                    b"Content-Type: application/json",
                    b"Content-Length: 1990000",
                    body=b'{"inputs":"' + b"7" * 1_900_000,
                ),
                150,
            ),
        ),
        at_once=1,
        most=2,
    ),
    Attack(
        "M5",
        "malformed headers",
        tuple(
            raw(name, framed(line), "400")
            for name, line in (
                ("control character", b"Authorization: Bearer " + SECRET + b"\x01"),
                ("NUL", b"Authorization: Bearer " + SECRET + b"\x00"),
                ("no colon", b"Authorization Bearer " + SECRET),
                ("space in the name", b"Author ization: Bearer " + SECRET),
                ("no name", b": " + SECRET),
                ("bare CR", b"X-A: b\rX-C: " + SECRET),
                ("bad length", b"Content-Length: 0x10"),
                ("negative length", b"Content-Length: -5"),
                ("two hosts", b"Host: elsewhere"),
            )
        )
        + (
            raw("method", b"G\x01T / HTTP/1.1\r\nHost: HOST\r\n\r\n", "400"),
            raw("version", b"GET / HTTP/9.9\r\nHost: HOST\r\n\r\n", "400", "505"),
            raw("no version", b"GET /\r\n\r\n", "200", "400"),
            raw("path", b"GET /\x01 HTTP/1.1\r\nHost: HOST\r\n\r\n", "400", "404"),
            raw("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "400", "505"),
            raw("TLS", bytes.fromhex("16030100c8010000c40303") + bytes(189) + b"\r\n\r\n", "400"),
        ),
    ),
    Attack(
        "headers",
        "giant heads",
        (
            raw("one of 64 KB", framed(b"X-A: " + b"a" * 65_536), "400", "431"),
            raw("one of 1.9 MB", framed(b"X-A: " + b"a" * 1_900_000), "400", "431", "closed"),
            raw("a long name", framed(b"a" * 65_536 + b": b"), "400", "431"),
            raw("20,000", framed(*(b"X-%d: a" % i for i in range(20_000))), "400", "431", "closed"),
            raw(
                "a long path",
                b"GET /" + b"a" * 65_536 + b" HTTP/1.1\r\nHost: HOST\r\n\r\n",
                *("400", "414"),
            ),
        ),
    ),
    Attack(
        "chunks",
        "bodies in chunks of one byte, and chunks that say much of themselves",
        tuple(
            raw(
                name,
                framed(
                    b"Content-Type: application/json",
                    b"Transfer-Encoding: chunked",
                    body=chunk * (3_000_000 // len(chunk)) + b"0\r\n\r\n",
                ),
                *("400", "408"),
            )
            for name, chunk in (
                ("one byte", b"1\r\n \r\n"),
                ("eight bytes", b"8\r\n        \r\n"),
                ("an extension", b"1;" + b"x" * 40 + b"\r\n \r\n"),
            )
        ),
        most=6,
    ),
    Attack(
        "smuggling",
        "two lengths for one body",
        (
            smuggle(
                "CL.TE",
                framed(
                    b"Content-Type: application/json",
                    b"Content-Length: %d" % (5 + len(NOTHING)),
                    b"Transfer-Encoding: chunked",
                    body=b"0\r\n\r\n" + NOTHING,
                ),
            ),
            smuggle(
                "TE.CL",
                framed(
                    b"Transfer-Encoding: chunked",
                    b"Content-Length: 3",
                    body=b"8\r\nSMUGGLED\r\n0\r\n\r\n" + NOTHING,
                ),
            ),
            smuggle(
                "CL.CL",
                framed(b"Content-Length: 0", b"Content-Length: 6", body=b"SMUGGL" + NOTHING),
            ),
            smuggle(
                "a spelling of chunked",
                framed(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n" + NOTHING),
            ),
            smuggle(
                "a space before the colon",
                framed(b"Transfer-Encoding : chunked", body=b"0\r\n\r\n" + NOTHING),
            ),
            smuggle(
                "a chunk without a size",
                framed(
                    b"Content-Type: application/json",
                    b"Transfer-Encoding: chunked",
                    body=b"zz\r\n\r\n0\r\n\r\n" + NOTHING,
                ),
            ),
        ),
    ),
    Attack(
        "JSON",
        "deep, odd and broken JSON",
        (
            post("arrays", GENERATE, lambda: b'{"inputs":' + b"[" * 900_000, "400", "422"),
            post("closed", GENERATE, lambda: b"[" * 900_000 + b"]" * 900_000, "400", "422"),
            post(
                "objects",
                CHAT,
                lambda: b'{"messages":[],"tools":' + b'{"a":' * 300_000 + b"1" + b"}" * 300_001,
                *("400", "422"),
            ),
            post(
                "variables",
                CHAT,
                lambda: (
                    b'{"messages":[{"role":"user","content":"Hi"}],"chat_template_kwargs":{"v":'
                    + b"[" * 900
                    + b"]" * 900
                    + b"}}"
                ),
                *("200", "400", "422"),
            ),
            post("UTF-8", GENERATE, lambda: b'{"inputs":"\xff\xfe\xc0\x80"}', "400"),
            post("surrogate", GENERATE, lambda: b'{"inputs":"\\ud800"}', "400", "422"),
            post("NUL", GENERATE, generate("a\0b"), "200", "422"),
            post("BOM", GENERATE, lambda: b"\xef\xbb\xbf" + SMALL, "200", "400"),
            post("NaN", GENERATE, lambda: b'{"inputs":"a","parameters":{"top_p":NaN}}', "422"),
            post(
                "1e999",
                GENERATE,
                lambda: b'{"inputs":"a","parameters":{"top_p":1e999}}',
                "400",
                "422",
            ),
            post(
                "digits",
                GENERATE,
                text(b'{"inputs":"a","parameters":{"seed":', b"9", b"}}"),
                "400",
                "422",
            ),
            post("seed", GENERATE, generate(seed=2**64), "400", "422"),
            post("tokens", GENERATE, generate(max_new_tokens=-(2**63)), "422"),
            post("no object", GENERATE, lambda: b"7", "422"),
            post("nothing", GENERATE, lambda: b"", "400"),
            raw(
                "gzip",
                framed(
                    b"Content-Type: application/json",
                    b"Content-Encoding: gzip",
                    b"Content-Length: 2",
                    body=b"\x1f\x8b",
                ),
                "415",
            ),
        ),
    ),
    Attack(
        "L3",
        "150 idle connections",
        (hold("idle", b"", 150), hold("idle after a request", NOTHING, 150)),
        at_once=1,
        most=2,
    ),
    Attack(
        "L5",
        "streams that nobody reads",
        (
            hold(
                "deaf",
                framed(
                    b"Content-Type: application/json",
                    b"Content-Length: %d" % len(STREAMED),
                    body=STREAMED,
                    path=b"/generate_stream",
                ),
                8,
                deaf=True,
            ),
        ),
        at_once=1,
        most=2,
        works=True,
    ),
    Attack(
        "slowloris",
        "100 heads and bodies that come by the byte",
        (
            trickle("heads", b"GET /health HTTP/1.1\r\nHost: HOST\r\n", b"X-A: b\r\n", 100),
            trickle(
                "bodies",
                framed(b"Content-Type: application/json", b"Content-Length: 100000"),
                b" ",
                100,
            ),
            trickle(
                "chunks",
                framed(b"Content-Type: application/json", b"Transfer-Encoding: chunked"),
                b"1\r\n \r\n",
                100,
            ),
        ),
        at_once=1,
        most=3,
    ),
    Attack(
        "floods",
        "200 connections at once",
        (
            flood("generate", POSTED, 200, "200"),
            flood("no such path", NOTHING, 200, "404"),
            flood("bad body", POSTED.replace(b'"inputs"', b'"inputz"'), 200, "422"),
            reset("gone at once", POSTED, 200),
            reset("only connect", b"", 200),
        ),
        at_once=1,
        most=10,
        works=True,
    ),
    Attack(
        "pipelines",
        "1000 requests on one connection",
        (raw("requests", NOTHING * 1000, "404"), raw("posts", POSTED * 100, "200")),
    ),
)
