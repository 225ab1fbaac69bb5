"""The shells' side of completion: argcomplete's, which asks attachctl itself at each Tab."""

from argcomplete.shell_integration import shellcode

PROGRAM = "attachctl"


def script(shell: str) -> str:
    """For ``bash``, ``zsh`` (a function of its fpath) or ``fish``.

    In bash without Readline's own completion behind it: where attachctl offers nothing, it isn't
    the name of a file that is wanted.
    """
    return str(shellcode([PROGRAM], False, shell, ["-o", "nospace"]))
