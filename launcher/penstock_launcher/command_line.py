"""The command line and the environment, read by the table in `options`. The command line wins."""

from __future__ import annotations

import argparse
import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

from penstock_launcher.config_file import arguments
from penstock_launcher.errors import LauncherError
from penstock_launcher.options import OPTIONS, Option, Options
from penstock_launcher.spellings import Spelling, as_it_is
from penstock_launcher.unsupported import TGI_VARIABLES, UNSUPPORTED, Unsupported
from penstock_launcher.variables import Reader, broken_rule

_FLAGS = " flags"  # no option is called so
EPILOGUE = (
    "Each option can also be given in the environment, under the name in brackets or that name "
    "behind TGI_; the command line wins, and an empty variable counts as not given."
)


def parse(argv: Sequence[str], environ: Mapping[str, str]) -> tuple[Options, list[str]]:
    """Options, and sentences about the environment that the operator should see in the log.

    Ends the process with code 2 and one sentence on standard error for a value that breaks its
    rule, an unknown option, or one that cannot be honoured.
    """
    parser = _parser()
    given = _read(parser, argv)
    if (path := given.get("config")) is not None:
        given = {**_of_file(parser, path), **given}
    reader = Reader(environ)
    values: dict[str, Any] = {}
    for option in OPTIONS:
        try:
            if option.name in given:
                values[option.name] = _collect(option, given[option.name])
            elif (found := reader.read(option)) is not None:
                values[option.name] = found.value
        except ValueError as error:
            parser.error(str(error))
    for refused in UNSUPPORTED:
        for name in filter(environ.get, refused.variables if refused.name not in given else ()):
            _refuse(parser, refused, f"environment variable {name}", environ[name])
    for name in filter(environ.get, TGI_VARIABLES):
        reader.notices.append(f"environment variable {name} is TGI's and has no effect here")
    return Options(**values), reader.notices


def _of_file(parser: argparse.ArgumentParser, path: str) -> dict[str, Any]:
    """What a file gives, by the same rules; its errors begin with its name."""
    try:
        argv = arguments(path)
    except LauncherError as error:
        parser.error(str(error))
    return _read(_parser(f"launcher --config {path}"), argv)


def _read(parser: argparse.ArgumentParser, argv: Sequence[str]) -> dict[str, Any]:
    given, unknown = parser.parse_known_args(argv)
    if unknown:
        parser.error(
            f"unrecognized arguments: {' '.join(unknown)} (penstock migrate translates the command "
            "lines of TGI, vLLM and SGLang)"
        )
    return vars(given)


def _parser(prog: str = "launcher") -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        usage="launcher [--model-id ID] [OPTIONS]",
        description="Serves a language model: downloads it, and starts its shards and the router.",
        epilog=EPILOGUE,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    version = importlib.metadata.version("penstock")
    parser.add_argument("-V", "--version", action="version", version=f"penstock {version}")
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="YAML file of options by these names, as `port: 8000`; the command line wins over it, "
        "and it over the environment",
    )
    for option in OPTIONS:
        _add_option(parser, option)
    group = parser.add_argument_group("what vLLM and SGLang call some of them")
    for option in OPTIONS:
        for spelling in option.spellings:
            _add_spelling(group, option, spelling)
    group = parser.add_argument_group("options of TGI's that are refused or change nothing")
    for refused in UNSUPPORTED:
        _add_unsupported(group, parser, refused)
    return parser


class _Take(argparse.Action):
    """Keeps a value, and the flag that gave it: another flag of the same option is an error."""

    def __init__(self, *args: Any, repeated: bool = False, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.repeated = repeated

    def __call__(self, parser: Any, namespace: Any, value: Any, flag: str | None = None) -> None:
        flags = vars(namespace).setdefault(_FLAGS, {})
        first = flags.setdefault(self.dest, flag)
        if first != flag:
            raise argparse.ArgumentError(None, f"{first} and {flag} say the same: give one of them")
        if self.nargs == 0:
            value = self.const
        elif self.repeated:
            lists = value if self.nargs == "+" else [value]  # one text may hold several values
            value = [*getattr(namespace, self.dest, []), *chain.from_iterable(lists)]
        setattr(namespace, self.dest, value)


def _add_option(parser: argparse.ArgumentParser, option: Option) -> None:
    variable = f" [{option.variable}]" if option.variable else ""
    default = f" (default: {option.default_text})" if option.default_text else ""
    settings = _values(option, as_it_is) if option.kind.takes_value else {"nargs": 0, "const": True}
    parser.add_argument(
        *filter(None, (option.short, option.flag)),
        dest=option.name,
        action=_Take,
        help=_plain(option.help + default + variable),
        **settings,
    )


def _add_spelling(group: argparse._ArgumentGroup, option: Option, spelling: Spelling) -> None:
    if spelling.says is None:
        settings, meaning = _values(option, spelling.value), option.flag
    else:
        settings = {"nargs": 0, "const": option.kind.parse(spelling.says)}
        meaning = f"{option.flag} {spelling.says}"
    note = f"; {spelling.note}" if spelling.note else ""
    group.add_argument(
        *spelling.flags,
        dest=option.name,
        action=_Take,
        help=_plain(f"{' and '.join(spelling.servers)}: {meaning}{note}"),
        **settings,
    )


def _values(option: Option, value: Callable[[str], str | None]) -> dict[str, Any]:
    settings = {"type": _converter(option, value), "metavar": option.kind.metavar}
    if option.kind.repeated:
        # a stray word must not become a key that is easily guessed
        settings |= {"repeated": True, "nargs": None if option.secret else "+"}
    return settings


def _add_unsupported(
    group: argparse._ArgumentGroup, parser: argparse.ArgumentParser, refused: Unsupported
) -> None:
    class Refuse(argparse.Action):
        def __call__(self, _parser: Any, namespace: Any, text: Any, flag: Any = None) -> None:
            _refuse(parser, refused, refused.flag, text if self.nargs is None else "true")
            setattr(namespace, self.dest, text)

    accepted = f"; accepted: {', '.join(refused.harmless)}" if refused.harmless else ""
    group.add_argument(
        refused.flag,
        dest=refused.name,
        action=Refuse,
        nargs=None if refused.takes_value else 0,
        metavar="VALUE" if refused.takes_value else None,
        help=_plain(refused.reason + accepted),
    )


def _refuse(parser: argparse.ArgumentParser, refused: Unsupported, source: str, text: str) -> None:
    if text.lower() not in refused.harmless:
        accepted = f" (accepted: {', '.join(refused.harmless)})" if refused.harmless else ""
        parser.error(f"{source}={text!r}: {refused.flag} {refused.reason}{accepted}")


def _converter(option: Option, value: Callable[[str], str | None]) -> Any:
    def convert(text: str) -> object:
        translated = value(text)
        try:
            kind = option.kind
            if translated is None:
                return option.default
            return kind.values(translated) if kind.repeated else kind.parse(translated)
        except ValueError:
            raise argparse.ArgumentTypeError(broken_rule(option, text)) from None

    return convert


def _collect(option: Option, value: Any) -> Any:
    return tuple(value) if option.kind.repeated else value


def _plain(text: str) -> str:
    return text.replace("%", "%%").replace("`", "")
