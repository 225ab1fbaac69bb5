"""attachd.conf(5)."""

from collections.abc import Iterator
from typing import Any

from attachd import conf
from sharekit.roff import Page, bold, sentence

EXAMPLE = (
    "[cinder]",
    "auth_type = password",
    "auth_url = http://controller:5000/v3",
    "username = attachd",
    "password = ...",
    "user_domain_name = Default",
    "project_name = service",
    "project_domain_name = Default",
    "",
    "[brick]",
    "multipath = on",
)


def configuration_page(version: str) -> Page:
    """The page, made of the options themselves."""
    page = Page("attachd.conf", 5, "configuration of attachd", version=version)
    page.heading("SYNOPSIS")
    page.marked(bold(str(conf.DEFAULT_FILE)))
    page.heading("DESCRIPTION")
    page.paragraph(
        "A file of groups, each begun by its name in brackets, and of options in them: "
        "`name = value`. What begins with # or ; is a comment. `$name` in a value stands for the "
        "value of another option. An option that a group of attachd's doesn't have is an error: a "
        "misspelt one would be silently without effect."
    )
    page.paragraph(
        "attachd reads it when it starts. The file has a password: nobody but root needs to read "
        "it, and attachd does so while it is root still."
    )
    page.paragraph(
        "In [DEFAULT] stand the options of oslo.log, too: `log_file` is what `--log-file` is on "
        "the command line. See `attachd(8)`."
    )
    for group, options in conf.list_opts():
        page.heading(f"[{group}]")
        for option in options:
            page.item(bold(option.dest), *_described(option))
    page.heading("FILES")
    page.item(bold(str(conf.DEFAULT_FILE)), "Unless `--config-file` names another.")
    page.heading("EXAMPLES")
    page.paragraph("The least that attachd needs, and one option more:")
    page.example(*EXAMPLE)
    page.see_also("attachd(8)", "attachctl(1)")
    return page


def _described(option: Any) -> Iterator[str]:  # noqa: ANN401 - oslo.config has no types
    yield sentence(" ".join((option.help or "").split()))
    choices = getattr(option.type, "choices", None) or {}
    for value, meaning in choices.items():
        if meaning:
            yield f"`{value}`: {meaning.rstrip('.')}."
    if choices and not any(choices.values()):
        yield "One of " + ", ".join(f"`{value}`" for value in choices) + "."
    yield from _bounds(getattr(option.type, "min", None), getattr(option.type, "max", None))
    default = option.default if option.sample_default is None else option.sample_default
    if default is not None:
        yield f"Default: `{str(default).lower() if isinstance(default, bool) else default}`."


def _bounds(least: float | None, most: float | None) -> Iterator[str]:
    if least is not None and most is not None:
        yield f"From {least:g} to {most}."
    elif least is not None:
        yield f"{least:g} at least."
    elif most is not None:
        yield f"{most} at most."
