"""The tables of docs/from/, made from those that translate."""

from __future__ import annotations

from penstock_launcher.migration.commands import SERVERS
from penstock_launcher.migration.rows import OPTION, Row, Server


def markdown() -> str:
    """For each server: every flag with its name here, and the limits whose defaults differ."""
    return "\n".join(f"## {server.name}\n\n{flags(server)}\n{limits(server)}" for server in SERVERS)


def flags(server: Server) -> str:
    """Every flag, and every variable that has another name."""
    lines = ["| flag | here | what differs |", "|---|---|---|", *map(_line, server.rows)]
    renamed = [f"- The variable `{name}` is `{ours}`." for name, ours in server.variables.items()]
    return "\n".join([*lines, *([""] if renamed else []), *renamed, ""])


def limits(server: Server) -> str:
    """What is otherwise where the command line says nothing."""
    lines = [
        f"| where nothing is said | {server.name} | here | as there |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| `{OPTION[name].flag}` | {text} | {OPTION[name].default} "
        f"| `{OPTION[name].flag} {text}`; `penstock migrate` adds it |"
        for name, text in server.added.items()
    ]
    lines += [
        f"| `{OPTION[name].flag}` | {limit.there} | {limit.here} "
        f"| `{OPTION[name].flag} {limit.restored}` |"
        for name, limit in server.defaults.items()
    ]
    return "\n".join([*lines, ""])


def _line(row: Row) -> str:
    flags = ", ".join(f"`{flag}`" for flag in row.flags)
    return f"| {flags} | {_here(row)} | {_differs(row)} |"


def _here(row: Row) -> str:
    if row.option is None:
        return "nothing" if row.served else "not served"
    option = OPTION[row.option]
    if row.says is None or not option.kind.takes_value:
        default = row.says == "false"
        return "the default" if default else f"`{option.flag}`"
    return f"`{option.flag} {row.says}`"


def _differs(row: Row) -> str:
    accepted = ", ".join(f"`{value}`" for value in row.neutral)
    parts = [row.note, f"accepted: {accepted}" if accepted else ""]
    return "; ".join(filter(None, parts)).replace("|", "\\|") or "-"
