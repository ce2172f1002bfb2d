"""The command line and the environment, read by the table in `options`. The command line wins."""

from __future__ import annotations

import argparse
import importlib.metadata
import re
from collections.abc import Mapping, Sequence
from typing import Any

from penstock_launcher.options import OPTIONS, Option, Options
from penstock_launcher.unsupported import TGI_VARIABLES, UNSUPPORTED, Unsupported

EPILOGUE = (
    "Each option can also be given in the environment, under the name in brackets; the command "
    "line wins, and an empty variable counts as not given."
)


# What a pod finds in the environment for every service: a service named `prometheus` makes
# PROMETHEUS_PORT.
KUBERNETES_LINK = re.compile(r"(tcp|udp|sctp)://\S+:\d+")


def parse(argv: Sequence[str], environ: Mapping[str, str]) -> tuple[Options, list[str]]:
    """Options, and sentences about the environment that the operator should see in the log.

    Ends the process with code 2 and one sentence on standard error for a value that breaks its
    rule, an unknown option, or one that cannot be honoured.
    """
    parser = _parser()
    given = vars(parser.parse_args(argv))
    notices: list[str] = []
    values: dict[str, Any] = {}
    for option in OPTIONS:
        if option.name in given:
            values[option.name] = _collect(option, given[option.name])
        elif (text := _variable(environ, option)) is not None:
            if option.kind.counts and KUBERNETES_LINK.fullmatch(text):
                notices.append(
                    f"environment variable {option.variable}={text} is ignored: Kubernetes makes "
                    f"it for a service of that name; {option.flag} sets the option"
                )
            else:
                values[option.name] = _from_environment(parser, option, text, notices)
    for refused in UNSUPPORTED:
        if refused.name not in given and (text := _variable(environ, refused)) is not None:
            _refuse(parser, refused, f"environment variable {refused.variable}", text)
    for name in filter(environ.get, TGI_VARIABLES):
        notices.append(f"environment variable {name} is TGI's and has no effect here")
    return Options(**values), notices


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
        settings |= {"action": "append"} if option.kind.repeated else {}
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
            return option.kind.parse(text)
        except ValueError:
            raise argparse.ArgumentTypeError(_broken_rule(option, text)) from None

    return convert


def _broken_rule(option: Option, text: str) -> str:
    return f"must be {option.kind.rule}" + ("" if option.secret else f", not {text!r}")


def _collect(option: Option, value: Any) -> Any:
    return tuple(value) if option.kind.repeated else value


def _variable(environ: Mapping[str, str], option: Option | Unsupported) -> str | None:
    return (environ.get(option.variable) or None) if option.variable else None


def _from_environment(
    parser: argparse.ArgumentParser, option: Option, text: str, notices: list[str]
) -> Any:
    try:
        if not option.kind.repeated:
            return option.kind.parse(text)
        separator = option.kind.separator
        parts = [text] if separator is None else text.split(separator)
        return tuple(option.kind.parse(part.strip()) for part in parts)
    except ValueError:
        sentence = f"environment variable {option.variable} {_broken_rule(option, text)}"
        if option.env_fallback is None:
            parser.error(sentence)
        notices.append(f"{sentence}; using {option.env_fallback}")
        return option.kind.parse(option.env_fallback)


def _plain(text: str) -> str:
    return text.replace("%", "%%").replace("`", "")
