"""Shall a volume be connected by several paths, and does multipathd run for it?"""

from __future__ import annotations

from collections.abc import Callable

from attachd.errors import AttachdError, Code, Unreachable, World
from attachd.model import Multipath


class Maps:
    """Says for each connect whether it is to make a map. ``running``: does multipathd run?"""

    def __init__(self, *, mode: Multipath, running: Callable[[], bool]) -> None:
        self._mode = mode
        self._running = running

    def check(self) -> None:
        """Raise Unreachable iscsi-unavailable where a map is required and none could be made."""
        if self._mode is Multipath.REQUIRE and not self._running():
            raise Unreachable(
                Code.ISCSI_UNAVAILABLE,
                "multipathd doesn't run, and [brick] multipath = require.",
                resolution="systemctl enable --now multipathd.service, or allow single paths "
                "([brick] multipath = on).",
                world=World.HOST,
                touched=False,
            )

    def wanted(self) -> bool:
        """Shall a connect now make a map? Raises as :meth:`check`."""
        self.check()
        return self._mode is not Multipath.OFF and self._running()

    def require(self, *, made: bool) -> None:
        """Raise connect-failed where a map is required and os-brick made none."""
        if self._mode is Multipath.REQUIRE and not made:
            raise AttachdError(
                Code.CONNECT_FAILED,
                "multipathd made no map of the volume's paths.",
                details="[brick] multipath = require.",
                resolution="See what multipathd says: multipath -v3, journalctl -u multipathd. A "
                "blacklist in multipath.conf is a common reason.",
            )
