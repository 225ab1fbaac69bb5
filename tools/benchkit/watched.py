"""Very many attachments: what they take while nothing is asked of attachd, and what they leave."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from statistics import linear_regression

from benchkit.figures import Document, say
from benchkit.rounds import memory
from benchkit.steady import cpu_of_an_audit, idle
from tests.functional.lab import Cloud, Guest, Host

GUESTS = 8
_AT_ONCE = 4
"""Volumes that Cinder is asked for."""


def watched(
    host: Host, cloud: Cloud, new_guest: Callable[..., Guest], attachments: int
) -> Document:
    """Attach each volume to each of eight guests, wait, and detach all again.

    The volumes may be attached to many: an export takes the lab's Cinder longer the more there
    are, and some forty are more than it answers for in time.
    """
    count = -(-attachments // GUESTS)
    guests = [new_guest("--memory", "128", "--ports", str(count)) for _ in range(GUESTS)]
    with _volumes(cloud, count) as volumes:
        host.restart_attachd()
        empty = cpu_of_an_audit(host)
        say(f"{GUESTS * count} attaches")
        looks = list(_looks(host, "attach", guests, volumes))
        audit = cpu_of_an_audit(host)
        resting = idle(host, GUESTS * count)
        say(f"{GUESTS * count} detaches")
        looks += [(GUESTS * count + n, kib) for n, kib in _looks(host, "detach", guests, volumes)]
    return {
        **resting,
        "volumes": count,
        "audit": {"nothing": empty, "all": audit},
        "growth": slope(looks),
    }


def slope(looks: Sequence[tuple[int, Document]]) -> Document:
    """PSS behind so many operations; by how much each of the later half added to both processes."""
    later = [(n, sum(kib.values())) for n, kib in looks[len(looks) // 2 :]]
    each = linear_regression([n for n, _ in later], [kib for _, kib in later]).slope
    last, kib = looks[-1]
    return {"operations": last, **kib, "slope_kib": round(each, 2), "looks": list(looks)}


@contextmanager
def _volumes(cloud: Cloud, count: int) -> Iterator[list[str]]:
    """So many that may be attached to many; gone at the end."""
    with (
        cloud.volume_type(extra_specs={"multiattach": "<is> True"}) as kind,
        ThreadPoolExecutor(_AT_ONCE) as pool,
    ):
        say(f"{count} volumes")
        made = list(pool.map(lambda _: cloud.volume(volume_type=kind), range(count)))
        try:
            yield made
        finally:
            list(pool.map(cloud.delete, made))


def _looks(
    host: Host, verb: str, guests: Sequence[Guest], volumes: Sequence[str]
) -> Iterator[tuple[int, Document]]:
    """Each guest with each volume, all guests at once; how many so far, and the PSS behind them."""
    for turn in range(len(volumes)):
        # No volume twice in a turn: one waits for another on the same volume.
        pairs = [(g.name, volumes[(turn + n) % len(volumes)]) for n, g in enumerate(guests)]
        asked = [f"attachctl {verb} {shlex.join(pair)} -f json >/dev/null &" for pair in pairs]
        waits = ["for job in $(jobs -p); do wait $job; done"]
        host.do("bash", "-eu", "-s", stdin="\n".join([*asked, *waits]) + "\n")
        done, kib = (turn + 1) * len(guests), memory(host)
        say(f"{done} {verb}ed: {kib}")
        yield done, kib
