"""attachd(8)."""

from argparse import ArgumentParser
from typing import cast

from attachd import conf
from sharekit.arguments import arguments_of
from sharekit.roff import Page, bold, sentence

EXIT_STATUSES = (
    ("0", "It was asked to stop, and stopped in order."),
    (
        "1",
        "It can't work: its configuration, its state directory or its socket can't be used (the "
        "reason is on standard error), or its privileged helper died. systemd starts it again.",
    ),
    ("2", "Wrong usage."),
)

FILES = (
    (str(conf.DEFAULT_FILE), "The configuration: see `attachd.conf(5)`."),
    ("/run/attachd/attachd.sock", "The socket of the API: for root, and the group `attachd`."),
    ("/var/lib/attachd/journal.db", "The journal: SQLite, for attachd alone."),
    ("/var/lib/attachd/locks", "Locks of guests and volumes, and os-brick's own."),
    (
        "/etc/libvirt/hooks/qemu.d/attachd",
        "libvirt's hook: a guest that starts has its volumes connected first, and leaves no "
        "session on the host when it ends.",
    ),
)


def attachd_page(version: str) -> Page:
    """The page, made of the command line that the configuration makes."""
    parser = cast(ArgumentParser, conf.load([], files=[])._oparser)
    parser.set_defaults(config_file=str(conf.DEFAULT_FILE))
    page = Page(
        "attachd", 8, "daemon that attaches Cinder volumes to libvirt guests", version=version
    )
    page.heading("SYNOPSIS")
    page.marked(f"{bold('attachd')} " + " ".join(each.usage for each in arguments_of(parser)))
    page.heading("DESCRIPTION")
    page.paragraph(
        "attachd attaches Cinder volumes to libvirt's guests on this host, and takes them off "
        "again, for everyone who talks to its socket: `attachctl(1)`, or any HTTP client. "
        "/v1/openapi.json there describes the API."
    )
    page.paragraph(
        "It writes down what it means to do before it does it. What fails on the way is undone in "
        "reverse; what its own end interrupts is settled at its next start, from its journal and a "
        "fresh look at Cinder, the host and the guest. So it may be killed at any moment. What it "
        "can't decide needs attention, and `attachctl operation list --open` shows it."
    )
    page.paragraph(
        "It is started by systemd as root, forks the helper that does the privileged part of "
        "os-brick's work, and becomes its own user. Where the helper dies it ends, to be started "
        "again whole. Guests go on running without it."
    )
    page.heading("OPTIONS")
    for argument in arguments_of(parser):
        page.item(argument.term, sentence(argument.help))
    page.heading("SIGNALS")
    page.item(
        f"{bold('SIGTERM')}, {bold('SIGINT')}",
        "Take no more requests, wait for what is under way (`shutdown_timeout`), and stop. What "
        "isn't finished by then goes on at the next start.",
    )
    page.heading("EXIT STATUS")
    page.items(EXIT_STATUSES)
    page.heading("FILES")
    page.items(FILES)
    page.heading("EXAMPLES")
    page.paragraph("Start it now and at each boot, and see what it has to say:")
    page.example("systemctl enable --now attachd", "journalctl --unit attachd --follow")
    page.paragraph("Ask it directly:")
    page.example("curl --unix-socket /run/attachd/attachd.sock http://localhost/v1/health")
    page.see_also("attachctl(1)", "attachd.conf(5)", "libvirtd(8)", "iscsid(8)", "systemctl(1)")
    return page
