"""Environment variables of another server."""

from __future__ import annotations

import re

from penstock_launcher.migration.rows import OPTION, Note, Server
from penstock_launcher.unsupported import UNSUPPORTED

REFUSED = {variable: one for one in UNSUPPORTED for variable in one.variables}
NAMES = {variable: option.name for option in OPTION.values() for variable in option.variables}
ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)


def rename(server: Server, name: str, value: str | None) -> tuple[str | None, Note | None]:
    """What Penstock reads in its place; None: nothing. value: None where it is not written here.

    Those of the hub, of CUDA and of other programs stay as they are. So do TGI's, in whose place
    Penstock reads the same names.
    """
    if name in server.variables:
        return server.variables[name], None
    if server.name == "TGI" and name in REFUSED:
        one = REFUSED[name]
        if (value or "").lower() in ("", *one.harmless):
            return None, None
        return None, Note(f"{name}={value}", f"is left out: {one.flag} {one.reason}", served=False)
    if server.without_meaning.fullmatch(name):
        return None, Note(name, f"is left out: it is {server.name}'s and has no effect here")
    if server.name != "TGI" and name in NAMES:
        flag = OPTION[NAMES[name]].flag
        return name, Note(name, f"is read by Penstock, as {flag}; {server.name} does not read it")
    return name, None


def option_of(server: Server, name: str, kept: str | None) -> list[str]:
    """The field of Options, at most one, that the other server's variable was meant to give."""
    meant = server.name == "TGI" or kept != name
    return [NAMES[kept]] if meant and kept in NAMES else []
