"""Which files there are, and the command that writes them."""

import argparse
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from sharekit import completions
from sharekit.attachctl_page import attachctl_page
from sharekit.attachd_page import attachd_page
from sharekit.configuration_page import configuration_page

USUAL_DIRECTORY = Path("build/share")


def files() -> Mapping[str, str]:
    """The text of each file, by its path below /usr/share."""
    number = version("attachd")
    pages = (attachctl_page(number), attachd_page(number), configuration_page(number))
    return {
        **{f"man/man{page.section}/{page.name}.{page.section}": str(page) for page in pages},
        "bash-completion/completions/attachctl": completions.script("bash"),
        "zsh/vendor-completions/_attachctl": completions.script("zsh"),
        "fish/vendor_completions.d/attachctl.fish": completions.script("fish"),
    }


def main(arguments: list[str] | None = None) -> int:
    """Write them."""
    parser = argparse.ArgumentParser(
        prog="share",
        description="Write the man pages and the completions of bash, zsh and fish into a "
        "directory, laid out as Debian has them in /usr/share.",
    )
    parser.add_argument(
        "directory",
        metavar="DIRECTORY",
        type=Path,
        nargs="?",
        default=USUAL_DIRECTORY,
        help=f"default: {USUAL_DIRECTORY}",
    )
    directory = parser.parse_args(arguments).directory
    for name, text in files().items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path, file=sys.stderr)
    return 0
