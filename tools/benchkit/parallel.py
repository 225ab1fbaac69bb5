"""Many attaches at once, against what no attachd could go below."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from benchkit.figures import Document, Round, say, union
from benchkit.floor import Floor
from benchkit.rounds import shown
from benchkit.steady import idle
from tests.functional.lab import API, Guest, Host, eventually


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Seconds that as many attaches need at the least, whoever makes them."""

    serial: float
    """os-brick connects one volume after another."""
    chain: float
    """One attach by itself."""
    cinder: float | None
    """Cinder's part of all of them at once; None: not measured."""

    @property
    def highest(self) -> float:
        """What can't be gone below."""
        return max(self.serial, self.chain, self.cinder or 0.0)


def at_once(
    host: Host, pairs: Sequence[tuple[Guest, str]], *, chain: float, floor: Floor | None
) -> Document:
    """Attach each volume to its guest, all at once; they are detached again.

    ``chain``: seconds of one attach by itself.
    """
    named = [(guest.name, volume) for guest, volume in pairs]
    cinder = None
    if floor is not None:
        say(f"Cinder alone, {len(pairs)} at once")
        cinder = floor.cinder_alone(named)
    say(f"{len(pairs)} attaches at once")
    attaches = _all(host, "attach", named)
    resting = idle(host, len(pairs))
    say(f"{len(pairs)} detaches at once")
    _all(host, "detach", named)
    bounds = Bounds(
        serial=union(interval for each in attaches for interval in each.connects()),
        chain=chain,
        cinder=cinder,
    )
    starts, ends = zip(*(each.interval for each in attaches), strict=True)
    wall = max(ends) - min(starts)
    say(f"wall {wall:.1f} s; serial {bounds.serial:.1f}, chain {chain:.1f}, cinder {cinder}")
    return {
        "n": len(pairs),
        "wall": round(wall, 4),
        "floor": round(bounds.highest, 4),
        "bounds": {
            "serial": round(bounds.serial, 4),
            "chain": round(bounds.chain, 4),
            "cinder": None if cinder is None else round(cinder, 4),
        },
        "idle": resting,
    }


def _all(host: Host, verb: str, named: Sequence[tuple[str, str]]) -> list[Round]:
    """Asked for at the same moment; what came of them.

    By curl: eight starts of attachctl would cost the lab's two processors some of what is measured.
    """
    lines = [f"{_request(verb, *pair)} &" for pair in named]
    host.script("\n".join([*lines, "wait"]) + "\n")
    # Seldom, for the same reason; the journal has the times.
    eventually("all are at their end", lambda: not host.open_operations(), pause=10)
    newest = json.loads(
        host.do("attachctl", "operation", "list", "-f", "json", "--limit", str(len(named)))
    )
    rounds = [shown(host, operation["operation_id"]) for operation in newest]
    if len(rounds) < len(named) or {each.operation["kind"] for each in rounds} != {verb}:
        raise RuntimeError(f"{verb}: not every one was accepted")
    failed = [each.operation["problem"] for each in rounds if each.operation["state"] != "done"]
    if failed:
        raise RuntimeError(f"{verb}: {failed}")
    return rounds


def _request(verb: str, guest: str, volume: str) -> str:
    """As attachctl asks."""
    asked = {"guest": guest, "volume": volume}
    if verb == "attach":
        body = shlex.quote(json.dumps(asked))
        return f"{API}/attachments -H 'Content-Type: application/json' -d {body}"
    return f"{API}/attachments?'{urlencode(asked)}' -X DELETE"
