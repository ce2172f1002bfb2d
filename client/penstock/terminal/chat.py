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
from penstock.terminal.screen import DIM, PLAIN, RED, Screen
from penstock_proto.config_file import Parser

URL = "http://127.0.0.1:3000"
BLOCK = '"""'
HELP = f"""\
/system TEXT   what the model is told before the conversation; nothing: forget it
/reset         begin anew
/help          this
/exit          leave, as Ctrl-D does
A line that ends in \\ goes on; {BLOCK} begins and ends a block of lines. Ctrl-C stops an answer."""
CUT = "(cut: the most tokens that an answer may have; see --max-tokens)"


def chat(argv: Sequence[str]) -> int:
    """`penstock chat`: a conversation until Ctrl-D. The exit code."""
    given = _parser("chat", "Talk to a model.").parse_args(argv)
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - input() then has a history and can be edited
    return _reported(given, _converse)


def run(argv: Sequence[str]) -> int:
    """`penstock run PROMPT`: one answer to standard output. The exit code."""
    parser = _parser("run", "Answer one prompt.")
    parser.add_argument("prompt", nargs="?", help="without it, or -: standard input")
    given = parser.parse_args(argv)
    if given.prompt is None and sys.stdin.isatty():
        parser.error("give a PROMPT, or text on standard input")
    prompt = sys.stdin.read() if given.prompt in (None, "-") else given.prompt
    if not prompt.strip():
        parser.error("the prompt is empty")

    def answer(conversation: Conversation) -> None:
        screen = Screen()
        for piece in conversation.say(prompt):
            if not piece.thought:
                screen.write(piece.text)
        screen.end()
        if conversation.cut:
            print(f"penstock: {CUT}", file=sys.stderr)

    return _reported(given, answer)


def _parser(name: str, description: str) -> Parser:
    parser = Parser(prog=f"penstock {name}", description=description)
    add = parser.add_argument
    add("--model", metavar="MODEL", help="start this model here: a folder or a hub id, or `demo`")
    add("--url", default=URL, help=f"of a server that runs; default {URL}")
    add("--api-key", default=os.environ.get("PENSTOCK_API_KEY", ""), help="or PENSTOCK_API_KEY")
    add("--system", default="", metavar="TEXT", help="what the model is told first")
    add("--temperature", type=float, metavar="X", help="default: the model's own")
    add("--max-tokens", type=int, metavar="N", help="of an answer; default: as many as fit")
    add("--seed", type=int, metavar="N")
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
        hint = ""
        if given.model is None and "cannot be reached" in str(error):
            hint = " (`penstock serve MODEL` starts a server there, --model MODEL one for this)"
        print(f"penstock: {error}{hint}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    return 0


def _converse(conversation: Conversation) -> None:
    """Read, answer, until the input ends."""
    screen = Screen()
    screen.note(f"{conversation.model()}; /help lists commands")
    while (text := _read(screen)) is not None:
        if text.startswith("/"):
            if not _command(conversation, text, screen):
                return
        elif text.strip():
            _answer(conversation, text, screen)
    print()


def _answer(conversation: Conversation, text: str, screen: Screen) -> None:
    """Print an answer as it comes; Ctrl-C and errors end it alone."""
    pieces = conversation.say(text)
    thinks = False
    try:
        for piece in pieces:
            if thinks and not piece.thought:
                screen.end()
            thinks = piece.thought
            screen.write(piece.text, DIM if piece.thought else PLAIN)
        screen.end()
        if conversation.cut:
            screen.note(CUT)
    except KeyboardInterrupt:
        screen.note(" (stopped)")
    except BackendError as error:
        hint = "; /reset begins anew" if conversation.messages else ""
        screen.note(f"error: {error}{hint}", RED)
    finally:
        pieces.close()


def _command(conversation: Conversation, text: str, screen: Screen) -> bool:
    """Do what a line with a slash says. False: leave."""
    name, _, rest = text.partition(" ")
    match name:
        case "/exit" | "/quit" | "/bye":
            return False
        case "/reset" | "/clear":
            conversation.reset()
            screen.note("(a new conversation)")
        case "/system":
            conversation.system = rest.strip()
            screen.note("(the model is told so from now on)" if rest.strip() else "(forgotten)")
        case "/help" | "/?":
            screen.note(HELP, PLAIN)
        case _:
            screen.note(f"there is no command {name}; /help lists them")
    return True


def _read(screen: Screen) -> str | None:
    """A line, or several; None at the end of the input."""
    try:
        line = input(screen.prompt("> "))
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
