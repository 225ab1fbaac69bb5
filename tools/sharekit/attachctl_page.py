"""attachctl(1)."""

from collections import Counter
from collections.abc import Iterable

from attachd.cli.parser import COLUMNS, DEFAULT_SOCKET, EXIT_STATUSES, build_parser
from sharekit.arguments import Argument, Command, arguments_of, commands_of
from sharekit.roff import Page, bold, italic, sentence

ENVIRONMENT = (
    ("ATTACHD_SOCKET", "The daemon's socket, where `--socket` names none."),
    (
        "ATTACHD_COMPLETION_SECONDS",
        "How long a shell that completes a guest, a volume, an attachment or an operation waits "
        "for the daemon's answer; 1 unless it is set. Without an answer nothing is completed.",
    ),
    ("NO_COLOR", "If it is set to anything, progress has no colours. So it has with `CLICOLOR=0`."),
    (
        "TERM",
        "On a terminal without a cursor (`dumb`) progress is written line by line.",
    ),
    ("COLUMNS", "The width of tables on a terminal, where it isn't the terminal's own."),
)

EXAMPLES = (
    (
        "Attach the volume data to the guest web, read-only, and see where it is:",
        "attachctl attach web data --mode ro",
        "attachctl list --guest web",
    ),
    (
        "Detach it, and wait for a minute at most; the operation goes on behind that:",
        "attachctl detach web data --timeout 60",
    ),
    (
        "What is under way, what needs attention, and what was done about it:",
        "attachctl operation list --open",
        "attachctl operation show 0cd33b46-eff6-4394-b234-6fda90ee0b8b",
        "attachctl operation resume 0cd33b46-eff6-4394-b234-6fda90ee0b8b",
    ),
    (
        "The same as a picture:",
        "attachctl trace 0cd33b46-eff6-4394-b234-6fda90ee0b8b -f svg > story.svg",
    ),
    (
        "For a script: the devices of all guests, one a line:",
        "attachctl list -f value -c guest_name -c device",
    ),
    (
        "Whether Cinder, the host, the guests and the journal agree, and what is safe to do:",
        "attachctl audit",
        "attachctl audit --repair",
    ),
)


def attachctl_page(version: str) -> Page:
    """The page, made of the parser."""
    parser = build_parser()
    commands = tuple(commands_of(parser))
    shared = _shared(commands)
    page = Page("attachctl", 1, "attach Cinder volumes to libvirt guests", version=version)
    _synopsis(page, arguments_of(parser))
    _description(page, parser.description or "")
    _commands(page, commands, shared)
    _options(page, (*arguments_of(parser), *shared), commands)
    _columns(page, commands)
    page.heading("EXIT STATUS")
    page.items((str(status), sentence(meaning)) for status, meaning in EXIT_STATUSES.items())
    page.paragraph(
        "`attachctl audit` ends with 5 where it has findings. What is wrong is told on standard "
        "error: a code that never changes and one sentence, then what is known, then what to do. "
        "With `-f json` it is an object on standard output."
    )
    page.heading("ENVIRONMENT")
    page.items(ENVIRONMENT)
    page.heading("FILES")
    page.item(bold(DEFAULT_SOCKET), "The daemon's socket: for root, and the group `attachd`.")
    page.heading("EXAMPLES")
    for words, *lines in EXAMPLES:
        page.paragraph(words)
        page.example(*lines)
    page.see_also("attachd(8)", "attachd.conf(5)", "virsh(1)")
    return page


def _shared(commands: Iterable[Command]) -> tuple[Argument, ...]:
    """What more than one command takes."""
    count = Counter(argument for command in commands for argument in command.arguments)
    return tuple(argument for argument, number in count.items() if number > 1)


def _synopsis(page: Page, arguments: Iterable[Argument]) -> None:
    page.heading("SYNOPSIS")
    usage = " ".join(argument.usage for argument in arguments)
    page.marked(f"{bold('attachctl')} {usage} {italic('COMMAND')} [{italic('ARGUMENT')}]...")


def _description(page: Page, description: str) -> None:
    page.heading("DESCRIPTION")
    page.paragraph(
        description,
        "attachd, a daemon of this host, does the work, journals each step before it takes it, and "
        "undoes what fails: an operation goes on, whatever becomes of attachctl.",
        "On a terminal attachctl shows its steps, each with its time.",
    )
    page.paragraph(
        "A guest is named by its libvirt name or UUID, a volume by its Cinder name or UUID. "
        "In bash, zsh and fish the Tab key completes both, as all else."
    )


def _commands(page: Page, commands: Iterable[Command], shared: tuple[Argument, ...]) -> None:
    page.heading("COMMANDS")
    for command in commands:
        positional = [each.value for each in command.arguments if not each.options]
        page.subheading(" ".join(["attachctl", command.name, *positional]))
        page.paragraph(command.description)
        for argument in command.arguments:
            if argument not in shared:
                page.item(argument.term, sentence(argument.help))


def _options(page: Page, arguments: Iterable[Argument], commands: tuple[Command, ...]) -> None:
    """What attachctl takes, or several commands; where it isn't all of them, with their names."""
    page.heading("OPTIONS")
    for argument in sorted(set(arguments), key=_place):
        takers = [each.name for each in commands if argument in each.arguments]
        others = [each.name for each in commands if argument not in each.arguments]
        of = ""
        if argument.options and takers and others:
            few = len(others) < len(takers)
            of = f" Not of: {', '.join(others)}." if few else f" Of: {', '.join(takers)}."
        page.item(argument.term, sentence(argument.help) + of)


def _place(argument: Argument) -> tuple[bool, str]:
    """In the list of options: by their long names, behind them the others."""
    return not argument.options, max(argument.options, key=len, default=argument.value)


def _columns(page: Page, commands: Iterable[Command]) -> None:
    """What ``-c`` may name: the same for several commands."""
    of: dict[str, list[str]] = {}
    for command in commands:
        if command.epilog:
            of.setdefault(command.epilog, []).append(command.name)
    page.heading("COLUMNS")
    for epilog, names in of.items():
        page.item(bold(", ".join(names)), f"{epilog.removeprefix(COLUMNS)}.")
