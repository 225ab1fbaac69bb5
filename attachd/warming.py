"""Has ready, ahead of time, what every operation would else wait for at its own.

That is a token with some life in it, what Cinder speaks, and the first time the connector's
properties. What can't be had isn't told of: the operation that needs it says so, or the doctor.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from attachd.errors import AttachdError
from attachd.periodic import Periodic

LOG = logging.getLogger(__name__)

INTERVAL = 60.0
"""Seconds. A token is renewed in its last two minutes (keystoneauth)."""


class Warming:
    """Asks for each of the ``things``, by their names, at the start and every minute."""

    def __init__(self, *, things: Mapping[str, Callable[[], object]]) -> None:
        self._things = things
        self._periodic = Periodic(
            name="warming",
            interval=INTERVAL,
            look=self._warm,
            failing="Nothing can be had ready now",
            daemon=True,  # Keystone may take its time, and nothing would be lost
        )

    def start(self) -> None:
        """Begin, at once."""
        self._periodic.wake()
        self._periodic.start()

    def stop(self) -> None:
        """Begin nothing more."""
        self._periodic.stop(0)

    def _warm(self) -> None:
        for name, ask in self._things.items():
            try:
                ask()
            except AttachdError as exc:
                LOG.debug("%s can't be had ready: %s", name, exc)
