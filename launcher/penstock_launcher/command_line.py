"""The command line and the environment, read by the table in `options`. The command line wins."""

from __future__ import annotations

import argparse
import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any

from penstock_launcher.options import OPTIONS, Option, Options
from penstock_launcher.unsupported import TGI_VARIABLES, UNSUPPORTED, Unsupported
from penstock_launcher.variables import Reader, broken_rule

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
    given = vars(parser.parse_args(argv))
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="launcher",
        usage="launcher [--model-id ID] [OPTIONS]",
        description="Serves a language model: downloads it, and starts its shards and the router.",
        epilog=EPILOGUE,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    version = importlib.metadata.version("penstock")
    parser.add_argument("-V", "--version", action="version", version=f"penstock {version}")
    for option in OPTIONS:
        _add_option(parser, option)
    group = parser.add_argument_group("options of TGI's that are refused or change nothing")
    for refused in UNSUPPORTED:
        _add_unsupported(group, parser, refused)
    return parser


def _add_option(parser: argparse.ArgumentParser, option: Option) -> None:
    variable = f" [{option.variable}]" if option.variable else ""
    default = f" (default: {option.default_text})" if option.default_text else ""
    settings: dict[str, Any] = {
        "dest": option.name,
        "help": _plain(option.help + default + variable),
    }
    if not option.kind.takes_value:
        settings |= {"action": "store_const", "const": True}
    else:
        settings |= {"type": _converter(option), "metavar": option.kind.metavar}
        settings |= {"action": "extend"} if option.kind.repeated else {}
    parser.add_argument(*filter(None, (option.short, option.flag)), **settings)


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


def _converter(option: Option) -> Any:
    def convert(text: str) -> object:
        try:
            kind = option.kind
            return kind.values(text) if kind.repeated else kind.parse(text)
        except ValueError:
            raise argparse.ArgumentTypeError(broken_rule(option, text)) from None

    return convert


def _collect(option: Option, value: Any) -> Any:
    return tuple(value) if option.kind.repeated else value


def _plain(text: str) -> str:
    return text.replace("%", "%%").replace("`", "")
