"""What the man pages need to know of an argparse parser."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

from sharekit.roff import bold, italic


@dataclass(frozen=True, kw_only=True)
class Argument:
    """An option, or a positional argument; the same one in two commands is equal."""

    options: tuple[str, ...]
    value: str
    help: str

    @property
    def term(self) -> str:
        """As the list of options names it."""
        if not self.options:
            return italic(self.value)
        value = f" {italic(self.value)}" if self.value else ""
        return ", ".join(bold(option) + value for option in self.options)

    @property
    def usage(self) -> str:
        """As a synopsis has it."""
        if not self.options:
            return italic(self.value)
        value = f" {italic(self.value)}" if self.value else ""
        longest = max(self.options, key=len)
        return f"[{bold(longest)}{value}]"


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command with its own arguments. ``name`` is that of the whole: "operation show"."""

    name: str
    description: str
    epilog: str
    arguments: tuple[Argument, ...]


def commands_of(parser: argparse.ArgumentParser) -> Iterator[Command]:
    """The commands below a parser, those of several words for each."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                inner = tuple(commands_of(below))
                yield from inner or (_command(below),)


def arguments_of(parser: argparse.ArgumentParser) -> tuple[Argument, ...]:
    """What a parser takes, without the commands below it."""
    return tuple(
        _argument(parser, action)
        for action in parser._actions
        if action.help != argparse.SUPPRESS and not isinstance(action, argparse._SubParsersAction)
    )


def _command(parser: argparse.ArgumentParser) -> Command:
    return Command(
        name=parser.prog.partition(" ")[2],
        description=parser.description or "",
        epilog=parser.epilog or "",
        arguments=arguments_of(parser),
    )


def _argument(parser: argparse.ArgumentParser, action: argparse.Action) -> Argument:
    takes_value = action.nargs != 0
    value = action.metavar or (
        "{" + ",".join(map(str, action.choices)) + "}" if action.choices else action.dest.upper()
    )
    shown = parser._get_formatter()._expand_help(action) if action.help else ""
    return Argument(
        options=tuple(action.option_strings),
        value=str(value) if takes_value else "",
        help=shown,
    )
