"""The command line and the environment, read by the table in `options`. The command line wins."""

from __future__ import annotations

import argparse
import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

from penstock_launcher.help import HelpfulParser
from penstock_launcher.options import COMMON, GROUPS, OPTIONS, Option, Options
from penstock_launcher.spellings import SGLANG, VLLM, Spelling, as_it_is
from penstock_launcher.unsupported import TGI_VARIABLES, UNSUPPORTED, Unsupported
from penstock_launcher.variables import Reader, broken_rule

LONG_CHOICES = 60  # characters
_FLAGS = " flags"  # no option is called so
_FOREIGN = " foreign"  # nor so
# vLLM's, which would be taken for -p with a value, and for -e beside -p
_LIKE_OURS = {"-pp": None, "-ep": 0}  # nargs
EPILOGUE = (
    "Each option can also be given in the environment, under the name in brackets or that name "
    "behind TGI_; the command line wins, and an empty variable counts as not given."
)
CONFIG = (
    "YAML file of options by these names, as `port: 8000`; the command line wins over it, and it "
    "over the environment"
)


def parse(argv: Sequence[str], environ: Mapping[str, str]) -> tuple[Options, list[str]]:
    """Options, and sentences about the environment that the operator should see in the log.

    Ends the process with code 2 and one sentence on standard error for a value that breaks its
    rule, an unknown option, or one that cannot be honoured.
    """
    parser = launcher_parser()
    namespace, unknown = parser.parse_known_args(argv)
    given, reader = vars(namespace), Reader(environ)
    if unknown := [*given.pop(_FOREIGN, ()), *unknown]:
        reader.notices += _foreign(parser, unknown, namespace)
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


def _foreign(
    parser: argparse.ArgumentParser, unknown: Sequence[str], namespace: argparse.Namespace
) -> list[str]:
    from penstock_launcher.foreign import understand  # large tables, which few starts need

    own = [option.flag for option in OPTIONS]
    spelled = [flag for option in OPTIONS for one in option.spellings for flag in one.flags]
    try:
        words, notices = understand(unknown, [*own, *spelled], vars(namespace))
    except ValueError as error:
        parser.error(str(error))
    parser.parse_args(words, namespace)
    return notices


def _is_foreign(flag: str) -> bool:
    from penstock_launcher.foreign import is_known

    return is_known(flag)


def launcher_parser() -> HelpfulParser:
    """The parser of the launcher's command line; what is not given is not in its namespace."""
    parser = HelpfulParser(
        prog="launcher",
        usage="launcher [--model-id ID] [OPTIONS]",
        description="Serves a language model: downloads it, and starts its shards and the router.",
        epilog=EPILOGUE,
        argument_default=argparse.SUPPRESS,
        config_help=CONFIG,
    )
    parser.passes_on = _is_foreign
    version = importlib.metadata.version("penstock")
    parser.add_argument("-V", "--version", action="version", version=f"penstock {version}")
    parser.common = list(COMMON)
    parser.others = [VLLM.lower(), SGLANG.lower(), "tgi"]
    for group in GROUPS:
        section = parser.section(group.name, group.what)
        section.actions.extend(_add_option(parser, option) for option in group.options)
    for server in (VLLM, SGLANG):
        parser.section(server.lower(), f"what {server} calls some of these")
    for option in OPTIONS:
        for spelling in option.spellings:
            action = _add_spelling(parser, option, spelling)
            for section in parser.sections:
                if section.name in map(str.lower, spelling.servers):
                    section.actions.append(action)
    for flag, nargs in _LIKE_OURS.items():
        parser.add_argument(flag, dest=_FOREIGN, action=_Keep, nargs=nargs, help=argparse.SUPPRESS)
    section = parser.section("tgi", "options of TGI's that are refused or change nothing")
    section.actions.extend(_add_unsupported(parser, refused) for refused in UNSUPPORTED)
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


class _Keep(argparse.Action):
    """Keeps a flag and its value as they were typed."""

    def __call__(self, parser: Any, namespace: Any, value: Any, flag: str | None = None) -> None:
        words = [flag] if self.nargs == 0 else [flag, value]
        setattr(namespace, self.dest, [*getattr(namespace, self.dest, ()), *words])


def _add_option(parser: argparse.ArgumentParser, option: Option) -> argparse.Action:
    variable = f" [{option.variable}]" if option.variable else ""
    default = f" (default: {option.default_text})" if option.default_text else ""
    settings = _values(option, as_it_is) if option.kind.takes_value else {"nargs": 0, "const": True}
    return parser.add_argument(
        *filter(None, (option.short, option.flag)),
        dest=option.name,
        action=_Take,
        help=_plain(option.help + _choices(option) + default + variable),
        **settings,
    )


def _add_spelling(
    parser: argparse.ArgumentParser, option: Option, spelling: Spelling
) -> argparse.Action:
    if spelling.says is None:
        settings, meaning = _values(option, spelling.value), option.flag
    else:
        settings = {"nargs": 0, "const": option.kind.parse(spelling.says)}
        meaning = f"{option.flag} {spelling.says}"
    note = f"; {spelling.note}" if spelling.note else ""
    return parser.add_argument(
        *spelling.flags,
        dest=option.name,
        action=_Take,
        help=_plain(meaning + note),
        **settings,
    )


def _choices(option: Option) -> str:
    """Those that are too many to stand beside the flag, as a sentence."""
    return f". {option.kind.rule.capitalize()}" if len(option.kind.metavar) > LONG_CHOICES else ""


def _values(option: Option, value: Callable[[str], str | None]) -> dict[str, Any]:
    metavar = "NAME" if _choices(option) else option.kind.metavar
    settings = {"type": _converter(option, value), "metavar": metavar}
    if option.kind.repeated:
        # a stray word must not become a key that is easily guessed
        settings |= {"repeated": True, "nargs": None if option.secret else "+"}
    return settings


def _add_unsupported(parser: argparse.ArgumentParser, refused: Unsupported) -> argparse.Action:
    class Refuse(argparse.Action):
        def __call__(self, _parser: Any, namespace: Any, text: Any, flag: Any = None) -> None:
            _refuse(parser, refused, refused.flag, text if self.nargs is None else "true")
            setattr(namespace, self.dest, text)

    accepted = f"; accepted: {', '.join(refused.harmless)}" if refused.harmless else ""
    return parser.add_argument(
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
