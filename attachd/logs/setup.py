"""Where the log goes: as oslo.log is configured, and to journald with fields.

oslo.log writes to standard output where nothing else is asked for. Where that leads to journald
(systemd.exec(5), JOURNAL_STREAM), the lines go there as entries with fields instead.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path

from oslo_config import cfg
from oslo_log import log

from attachd.logs.journald import SOCKET, JournaldHandler
from attachd.trace.masking import without_secrets


class Masking(logging.Formatter):
    """Formats as ``inner`` does, and masks what looks like a secret, in tracebacks, too."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        """The line that goes out."""
        return without_secrets(self._inner.format(record))


def set_up(
    config: cfg.ConfigOpts, environment: Mapping[str, str], *, journald: Path = SOCKET
) -> None:
    """Begin to log as ``config`` asks; ``journald`` is its socket."""
    log.setup(config, "attachd")
    root = logging.getLogger()
    stream = environment.get("JOURNAL_STREAM", "")
    for handler in tuple(root.handlers):
        leads_there = _leads_to(stream, handler) and journald.is_socket()
        if leads_there and not config.use_json:
            root.removeHandler(handler)
            root.addHandler(JournaldHandler(path=journald))
    for handler in root.handlers:
        handler.setFormatter(Masking(handler.formatter or logging.Formatter()))


def _leads_to(journal_stream: str, handler: logging.Handler) -> bool:
    """Is this the stream that systemd connected to journald?"""
    if not isinstance(handler, logging.StreamHandler):
        return False
    try:
        status = os.fstat(handler.stream.fileno())
    except (OSError, ValueError):  # it is no file at all
        return False
    return f"{status.st_dev}:{status.st_ino}" == journal_stream
