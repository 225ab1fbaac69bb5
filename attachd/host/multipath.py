"""Shall a volume be connected by several paths, and does multipathd run for it?"""

from __future__ import annotations

from collections.abc import Callable

import tenacity

from attachd.errors import AttachdError, Code, Unreachable, World
from attachd.host.polling import rising
from attachd.model import Multipath


class Maps:
    """Says for each connect whether it is to make a map.

    ``running``: does multipathd run? ``timeout``: seconds that it has to make a map.
    """

    def __init__(self, *, mode: Multipath, running: Callable[[], bool], timeout: float) -> None:
        self._mode = mode
        self._running = running
        self._timeout = timeout

    def check(self) -> None:
        """Raise Unreachable iscsi-unavailable where a map is required and none could be made."""
        if self._required(None):
            self.to_make(mapped=None)

    def wanted(self) -> bool:
        """Shall a volume be attached by a map, now?"""
        return self._mode is not Multipath.OFF and self._running()

    def to_make(self, *, mapped: bool | None) -> bool:
        """Shall a connect make a map? ``mapped``: as before, whatever the configuration says now.

        Raises Unreachable iscsi-unavailable where it must and can't.
        """
        running = self.wanted() if mapped is None else mapped and self._running()
        if self._required(mapped) and not running:
            raise _not_running(
                "[brick] multipath = require."
                if mapped is None
                else "The volume was attached by its multipath map."
            )
        return running

    def _required(self, mapped: bool | None) -> bool:
        return self._mode is Multipath.REQUIRE if mapped is None else mapped

    def require(self, made: Callable[[], bool], *, mapped: bool | None) -> None:
        """Raise connect-failed where there must be a map and multipathd makes none in time."""
        waiting = tenacity.Retrying(
            retry=tenacity.retry_if_result(lambda there: not there),
            stop=tenacity.stop_after_delay(self._timeout),
            wait=rising,
            retry_error_callback=lambda _: False,
        )
        if self._required(mapped) and not waiting(made):
            raise AttachdError(
                Code.CONNECT_FAILED,
                "multipathd made no map of the volume's paths.",
                resolution="See what multipathd says: multipath -v3, journalctl -u multipathd. A "
                "blacklist in multipath.conf is a common reason.",
            )


def _not_running(details: str) -> Unreachable:
    return Unreachable(
        Code.ISCSI_UNAVAILABLE,
        "multipathd doesn't run, and a map is required.",
        details=details,
        resolution="systemctl enable --now multipathd.service; for new attachments single paths "
        "can be allowed ([brick] multipath = on).",
        world=World.HOST,
        touched=False,
    )
