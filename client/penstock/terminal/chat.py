"""`penstock chat` and `penstock run`: talk to a server, or to a model that is started for it."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence

from penstock.embedded import EmbeddedServer, ServerError
from penstock.lang.backend import BackendError
from penstock.terminal.conversation import Conversation
from penstock_proto.config_file import Parser

URL = "http://127.0.0.1:3000"
BLOCK = '"""'
HELP = f"""\
/system TEXT   what the model is told before the conversation; nothing: forget it
/reset         begin anew
/help          this
/exit          leave, as Ctrl-D does
A line that ends in \\ goes on; {BLOCK} begins and ends a block of lines. Ctrl-C stops an answer."""
BOLD, DIM, PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[0m"


def chat(argv: Sequence[str]) -> int:
    """`penstock chat`: a conversation until Ctrl-D. The exit code."""
    given = _parser("chat", "Talk to a model.").parse_args(argv)
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - input() then has a history and can be edited
    return _reported(given, _converse)


def run(argv: Sequence[str]) -> int:
    """`penstock run PROMPT`: one answer to standard output. The exit code."""
    parser = _parser("run", "Answer one prompt; - reads it from standard input.")
    parser.add_argument("prompt")
    given = parser.parse_args(argv)
    prompt = sys.stdin.read() if given.prompt == "-" else given.prompt

    def answer(conversation: Conversation) -> None:
        for piece in conversation.say(prompt):
            print(piece, end="", flush=True)
        print()

    return _reported(given, answer)


def _parser(name: str, description: str) -> argparse.ArgumentParser:
    parser = Parser(prog=f"penstock {name}", description=description)
    add = parser.add_argument
    add("--model", metavar="MODEL", help="start this model here: a folder or a hub id, or `demo`")
    add("--url", default=URL, help=f"of a server that runs; default {URL}")
    add("--api-key", default=os.environ.get("PENSTOCK_API_KEY", ""), help="or PENSTOCK_API_KEY")
    add("--system", default="", metavar="TEXT", help="what the model is told first")
    add("--temperature", type=float, help="default: the model's own")
    add("--max-tokens", type=int, help="of an answer; default: as many as fit")
    add("--seed", type=int)
    return parser


@contextlib.contextmanager
def _conversation(given: argparse.Namespace) -> Iterator[Conversation]:
    with contextlib.ExitStack() as stack:
        url = given.url
        if given.model is not None:
            model = None if given.model == "demo" else given.model
            url = stack.enter_context(EmbeddedServer(model)).url
        conversation = Conversation(
            url,
            given.api_key,
            temperature=given.temperature,
            max_tokens=given.max_tokens,
            seed=given.seed,
        )
        stack.callback(conversation.close)
        conversation.system = given.system
        yield conversation


def _reported(given: argparse.Namespace, talk: Callable[[Conversation], None]) -> int:
    try:
        with _conversation(given) as conversation:
            talk(conversation)
    except (BackendError, ServerError, ValueError) as error:
        print(f"penstock: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    return 0


def _converse(conversation: Conversation) -> None:
    """Read, answer, until the input ends."""
    bold, dim, plain = _colours()
    print(f"{dim}{conversation.model()}; /help lists commands{plain}")
    while (text := _read(f"{bold}>{plain} ")) is not None:
        if text.startswith("/"):
            if not _command(conversation, text):
                return
        elif text.strip():
            _answer(conversation, text)
    print()


def _answer(conversation: Conversation, text: str) -> None:
    """Print an answer as it comes; Ctrl-C and errors end it alone."""
    pieces = conversation.say(text)
    try:
        for piece in pieces:
            print(piece, end="", flush=True)
        print()
    except KeyboardInterrupt:
        print(" (stopped)")
    except BackendError as error:
        print(f"error: {error}")
    finally:
        pieces.close()


def _command(conversation: Conversation, text: str) -> bool:
    """Do what a line with a slash says. False: leave."""
    name, _, rest = text.partition(" ")
    match name:
        case "/exit" | "/quit":
            return False
        case "/reset":
            conversation.reset()
        case "/system":
            conversation.system = rest.strip()
        case "/help":
            print(HELP)
        case _:
            print(f"there is no command {name}; /help lists them")
    return True


def _read(prompt: str) -> str | None:
    """A line, or several; None at the end of the input."""
    try:
        line = input(prompt)
        if line.strip() == BLOCK:
            return "\n".join(iter(lambda: _unless_block(input("… ")), None))
        while line.endswith("\\"):
            line = f"{line[:-1]}\n{input('… ')}"
        return line
    except EOFError:
        return None
    except KeyboardInterrupt:  # of a line that is not sent
        print()
        return ""


def _unless_block(line: str) -> str | None:
    return None if line.strip() == BLOCK else line


def _colours() -> tuple[str, str, str]:
    plain = not sys.stdout.isatty() or "NO_COLOR" in os.environ
    return ("", "", "") if plain else (BOLD, DIM, PLAIN)
