"""The tables of docs/options.md, a group each."""

from __future__ import annotations

from penstock_launcher.options import GROUPS, Option
from penstock_launcher.unsupported import UNSUPPORTED


def markdown() -> str:
    """All of them."""
    lines = []
    for group in GROUPS:
        lines += [f"**{group.name}**: {group.what}", ""]
        lines += ["| option | environment | default | meaning |", "|---|---|---|---|"]
        lines += [*map(_row, group.options), ""]
    lines += [
        "Options of TGI's that are refused, or accepted because they change nothing:",
        "",
        "| option | environment | accepted | why |",
        "|---|---|---|---|",
    ]
    for refused in UNSUPPORTED:
        variable = f"`{refused.variable}`" if refused.variable else "-"
        accepted = ", ".join(f"`{value}`" for value in refused.harmless) or "-"
        lines.append(f"| `{refused.flag}` | {variable} | {accepted} | {refused.reason} |")
    return "\n".join(lines) + "\n"


def _row(option: Option) -> str:
    value = f" {option.kind.metavar}" if option.kind.takes_value else ""
    others = [flag for spelling in option.spellings for flag in spelling.flags]
    short = [option.short] if option.short else []
    flag = ", ".join(f"`{name}`" for name in (f"{option.flag}{value}", *short, *others))
    names = filter(None, (*option.overrides, option.variable, *option.also))
    variable = ", ".join(f"`{name}`" for name in names) or "-"
    return "| " + " | ".join((flag, variable, option.default_text or "-", option.help)) + " |"
