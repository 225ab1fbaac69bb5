"""Every kind of operation and its table of steps."""

from __future__ import annotations

from collections.abc import Mapping

from attachd.model import OperationKind
from attachd.operations import (
    adopt,
    attach,
    detach,
    disconnect,
    extend,
    fence,
    reconnect,
    release,
    restore,
)
from attachd.saga.history import StepSpec

TABLES: Mapping[OperationKind, tuple[StepSpec, ...]] = {
    OperationKind.ATTACH: attach.TABLE,
    OperationKind.DETACH: detach.TABLE,
    OperationKind.RECONNECT: reconnect.TABLE,
    OperationKind.DISCONNECT: disconnect.TABLE,
    OperationKind.FENCE: fence.TABLE,
    OperationKind.RESTORE: restore.TABLE,
    OperationKind.CLEAN_UP: detach.TABLE,
    OperationKind.ADOPT: adopt.TABLE,
    OperationKind.RELEASE: release.TABLE,
    OperationKind.EXTEND: extend.TABLE,
}
