"""The tables of docs/migrating.md, made from those that translate."""

from __future__ import annotations

from penstock_launcher.migration.commands import SERVERS
from penstock_launcher.migration.rows import OPTION, Row, Server


def markdown() -> str:
    """For each server: every flag with its name here, and the limits whose defaults differ."""
    return "\n".join(line for server in SERVERS for line in _section(server))


def _section(server: Server) -> list[str]:
    lines = [f"## Flags of {server.name}", "", "| flag | here | what differs |", "|---|---|---|"]
    lines += [_line(row) for row in server.rows]
    if server.added or server.defaults:
        lines += ["", f"Where {server.name}'s command line says nothing:", ""]
        lines += [
            f"- `{OPTION[name].flag} {text}` is added, as that is {server.name}'s default."
            for name, text in server.added.items()
        ]
        lines += [f"- `{OPTION[name].flag}` {text}." for name, text in server.defaults.items()]
    renamed = [f"- `{name}` is `{ours}`." for name, ours in server.variables.items()]
    if renamed:
        lines += ["", "Environment:", "", *renamed]
    return [*lines, ""]


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
