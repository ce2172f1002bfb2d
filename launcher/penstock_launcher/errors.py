"""What the launcher says when it cannot go on."""


class LauncherError(Exception):
    """One sentence for the operator; the launcher logs it and ends with code 1."""
