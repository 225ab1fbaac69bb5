"""[brick]: how os-brick connects."""

from __future__ import annotations

from oslo_config import cfg

from attachd.model import Multipath

GROUP = "brick"

OPTS: list[cfg.Opt] = [
    cfg.StrOpt(
        "multipath",
        default=Multipath.OFF,
        choices=[
            (Multipath.OFF, "One path, the first that answers."),
            (Multipath.ON, "Every path, where multipathd runs; else one path."),
            (
                Multipath.REQUIRE,
                "Every path; where multipathd doesn't run, or makes no map, an "
                "attach is refused, or undone.",
            ),
        ],
        help="Whether a volume is connected by all of its target's portals, and the guest's disk "
        "sits on the multipath map. What is attached already stays as it is.",
    ),
]
