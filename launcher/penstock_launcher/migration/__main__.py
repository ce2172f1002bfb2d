"""`penstock migrate`: a command line, compose file, manifest or environment of TGI, vLLM or SGLang
in, Penstock's out; what differs goes to standard error, a line each.
"""

from __future__ import annotations

import contextlib
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from penstock_launcher.migration.commands import SERVERS, Migrated, migrate_script, migrate_words
from penstock_launcher.migration.documents import migrate_yaml
from penstock_launcher.migration.environment import ASSIGNMENT, rename
from penstock_launcher.migration.page import markdown
from penstock_proto.config_file import Parser

LONGEST = 1 << 20  # bytes of a file
LINE = re.compile(r"\s*(?:#.*)?|\s*(?:export\s+)?[A-Za-z_]\w*=.*")
NOTHING = (
    "nothing of TGI, vLLM or SGLang was found: give a command line, a compose file, a Kubernetes "
    "manifest or a file of NAME=VALUE lines"
)


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0, 1 where something is not served, 2 where there was nothing to translate."""
    parser = Parser(
        prog="penstock migrate",
        usage="penstock migrate [FILE | COMMAND LINE...]  (without either: standard input)\n"
        "       penstock migrate --check URL URL [-i FILE]  (replay requests, print differences)",
        description="Translates what TGI, vLLM or SGLang was started with. What differs is said on "
        "standard error; exit code 1: some of it is not served.",
    )
    parser.add_argument("--markdown", action="store_true", help="all flags, for docs/migrating.md")
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0].startswith("-"):
        given, words = parser.parse_known_args(words)
        if given.markdown:
            print(markdown(), end="")
            return 0
    words = words[1:] if words[:1] == ["--"] else words
    try:
        result = _migrate(words)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        print(f"penstock migrate: {error}", file=sys.stderr)
        return 2
    if result is None:
        print(f"penstock migrate: {NOTHING}", file=sys.stderr)
        return 2
    print(result.text)
    for note in dict.fromkeys(map(str, result.notes)):
        print(note, file=sys.stderr)
    return int(any(not note.served for note in result.notes))


def _migrate(words: Sequence[str]) -> Migrated | None:
    if words and words != ["-"] and not (len(words) == 1 and Path(words[0]).is_file()):
        return migrate_words(words) if len(words) > 1 else migrate_text(words[0])
    with contextlib.ExitStack() as stack:
        from_stdin = not words or words == ["-"]
        stream = sys.stdin.buffer if from_stdin else stack.enter_context(open(words[0], "rb"))
        data = stream.read(LONGEST + 1)
    if len(data) > LONGEST:
        raise ValueError(f"the input is longer than {LONGEST} bytes")
    return migrate_text(data.decode())


def migrate_text(text: str) -> Migrated | None:
    """Whatever it is; None: nothing that starts one of the servers."""
    return migrate_yaml(text) or migrate_script(text) or migrate_variables(text)


def migrate_variables(text: str) -> Migrated | None:
    """A file of NAME=VALUE lines: the server is the one whose names are in it, else TGI."""
    lines = text.splitlines()
    matches = [ASSIGNMENT.fullmatch(line.strip().removeprefix("export ")) for line in lines]
    if not any(matches) or not all(map(LINE.fullmatch, lines)):
        return None
    names = [match[1] for match in matches if match]
    others = [server for server in SERVERS[1:] if any(map(server.without_meaning.fullmatch, names))]
    server = others[0] if others else SERVERS[0]
    result = Migrated("")
    kept = []
    for line, match in zip(lines, matches, strict=True):
        if match is None:
            kept.append(line)
            continue
        name, note = rename(server, match[1], match[2])
        result.notes += [note] if note else []
        if name is not None:
            kept.append(line.replace(match[1], name, 1))
    result.text = "\n".join(kept)
    return result


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `penstock migrate FILE | head`
    sys.exit(main())
