"""Connect, extend and disconnect: os-brick does the work, this module makes it safe.

* os-brick gets the plural properties always: with the singular ones it has been seen to disconnect
  another volume's device, by an old discovery record.
* A device that is there already is returned as it is: os-brick would force its removal when
  connecting it a second time failed.
* A disconnect finds the device anew by session and LUN, refuses one that is another's or still
  held, and hands it to os-brick by name, as without it there would be no flush.
* os-brick may wait for its lock for minutes: under it, at the very deletion, the device is looked
  at once more.
* Where multipathd made a map of the paths, the map is what is flushed, checked and taken away.
* An extend rescans what was proven to be the volume, and reads the sizes itself behind it.
* All end with a fresh look (law 3). What os-brick left is removed here: sessions whose LUNs are
  gone, and node records, which hold CHAP passwords and would log in again at the next boot.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import tenacity

from attachd.errors import AttachdError, Code, Refused, Unreachable, World
from attachd.host.brick import BrickConnector, Execute, ProcessExecutionError
from attachd.host.calls import Calls
from attachd.host.commands import LOGIN_SECONDS, NO_RECORDS, Commands, Deadline, NotOursError
from attachd.host.failures import helper_lost, iscsid_is_starting, iscsid_silent, translated
from attachd.host.holders import Holders
from attachd.host.identity import Identity
from attachd.host.multipath import Maps
from attachd.host.polling import rising
from attachd.host.portals import answering
from attachd.host.sysfs import Block, Device, Map, Session, Sysfs
from attachd.model import Connection, Target
from attachd.portal import split_portal

LOG = logging.getLogger(__name__)

MakeConnector = Callable[[Execute, bool], BrickConnector]
"""Of a way to run commands, and of whether all paths and their map are meant."""
Exclusively = Callable[[Callable[[], None]], None]
"""Runs a function while nothing else on this host connects or disconnects."""

_PROTOCOL = "iscsi"
_FLUSH_MAP = ("multipath", "-f")
_OF_MAPS = frozenset({_FLUSH_MAP, ("multipath", "-C"), ("multipathd", "del")})
_DELETION = re.compile(r"/sys/block/([^/]+)/device/delete")
_ISCSID_STARTS = 15.0
"""Seconds."""


def brick_properties(connection: Connection) -> dict[str, Any]:
    """What os-brick is told: Cinder's connection in the plural, with the credentials."""
    properties: dict[str, Any] = {
        "target_discovered": False,
        "target_portals": [target.portal for target in connection.targets],
        "target_iqns": [target.iqn for target in connection.targets],
        "target_luns": [target.lun for target in connection.targets],
        "encrypted": False,
    }
    for prefix, chap in (("auth", connection.chap), ("discovery_auth", connection.discovery_chap)):
        if chap is not None:
            properties[f"{prefix}_method"] = chap.method
            properties[f"{prefix}_username"] = chap.username
            properties[f"{prefix}_password"] = chap.password
    return properties


class IscsiVolumes:
    """Connects and disconnects volumes; thread-safe. All times are in seconds.

    ``connect_timeout`` and ``disconnect_timeout`` bound a call; ``grace`` is what its last command
    gets to end in.
    """

    def __init__(
        self,
        *,
        sysfs: Sysfs,
        identity: Identity,
        execute: Execute,
        helper_alive: Callable[[], bool],
        make_connector: MakeConnector,
        exclusively: Exclusively,
        portal_timeout: float,
        connect_timeout: float,
        disconnect_timeout: float,
        grace: float,
        holders: Holders,
        maps: Maps,
    ) -> None:
        self._sysfs = sysfs
        self._identity = identity
        self._execute = execute
        self._helper_alive = helper_alive
        self._make_connector = make_connector
        self._exclusively = exclusively
        self._portal_timeout = portal_timeout
        self._connect_timeout = connect_timeout
        self._disconnect_timeout = disconnect_timeout
        self._grace = grace
        self._holders = holders
        self._maps = maps
        self._calls = Calls()

    def connect(self, volume_id: str, connection: Connection, *, mapped: bool | None = None) -> str:
        """The kernel path of the volume's device. Raises as ``Host.connect`` does."""
        if connection.protocol != _PROTOCOL:
            raise Refused(
                Code.PROTOCOL_UNSUPPORTED,
                f"Volumes over {connection.protocol} can't be connected.",
                resolution="Use a volume of an iSCSI backend.",
            )
        self._calls.settle(volume_id, timeout=self._grace)
        there = self._sysfs.lun_devices(connection.targets)
        if there:
            self._require_map(there, mapped)
            return there[0].path
        multipath = self._maps.to_make(mapped=mapped)
        alive = answering(connection.targets, timeout=self._portal_timeout)
        path = self._connect(volume_id, replace(connection, targets=alive), multipath=multipath)
        try:
            self._require_map(self._sysfs.lun_devices(connection.targets), mapped)
        except AttachdError:
            self._clean_up(volume_id, connection)
            raise
        return path

    def disconnect(
        self,
        volume_id: str,
        connection: Connection,
        *,
        expected_wwn: str | None,
        given_up: bool = False,
    ) -> None:
        """Nothing of the volume is left on the host. Raises as ``Host.disconnect`` does."""
        self._calls.settle(volume_id, timeout=self._grace)
        commands = self._commands(self._disconnect_timeout)
        future = self._calls.run(
            volume_id,
            lambda: self._remove(connection, expected_wwn, commands, given_up=given_up),
            commands=commands,
            timeout=self._disconnect_timeout,
            grace=self._grace,
        )
        failure = future.exception()
        if failure is not None:
            raise self._failure(failure, Code.DISCONNECT_FAILED, commands) from failure

    def extend(
        self, volume_id: str, connection: Connection, *, expected_wwn: str, size_bytes: int
    ) -> int | None:
        """The bytes of the LUN's smallest device. Raises as ``Host.extend`` does."""
        self._calls.settle(volume_id, timeout=self._grace)
        commands = self._commands(self._connect_timeout)
        future = self._calls.run(
            volume_id,
            lambda: self._grow(connection, expected_wwn, size_bytes, commands),
            commands=commands,
            timeout=self._connect_timeout,
            grace=self._grace,
        )
        failure = future.exception()
        if failure is not None:
            raise self._failure(failure, Code.EXTEND_FAILED, commands) from failure
        return future.result()

    def settle(self, volume_id: str, connection: Connection, *, age: float) -> None:
        """Wait until an orphaned login shows its session, or iscsid has given it up.

        ``age``: seconds since its caller was dead. No login begins without a node record: without
        one there is nothing to wait for. Raises Unreachable where nobody could look.
        """
        left = LOGIN_SECONDS - age
        if left <= 0:
            return
        timeout = left + self._grace
        commands = self._commands(timeout)
        future = self._calls.run(
            volume_id,
            lambda: self._await_login(connection.targets, commands, seconds=left),
            commands=commands,
            timeout=timeout,
            grace=self._grace,
        )
        failure = future.exception()
        if failure is not None:
            cause = self._failure(failure, Code.CONNECT_FAILED, commands).problem
            raise Unreachable(
                Code.ISCSI_UNAVAILABLE,
                "The host's logins can't be looked at.",
                details=cause.details or cause.brief,
                resolution="See what iscsiadm -m node says.",
                world=World.HOST,
                touched=False,
            ) from failure

    def _await_login(
        self, targets: Sequence[Target], commands: Commands, *, seconds: float
    ) -> None:
        waiting = tenacity.Retrying(
            retry=tenacity.retry_if_result(bool),
            stop=tenacity.stop_after_delay(seconds),
            wait=rising,
            retry_error_callback=lambda _: [],
        )
        waiting(lambda: self._idle_records(targets, commands))

    def present(self, connection: Connection, *, session_shared: bool = False) -> bool:
        """Is there a device of the LUN, or a session that nothing else uses?"""
        if self._sysfs.lun_devices(connection.targets):
            return True
        return not session_shared and bool(self._idle_sessions(connection.targets))

    # --- connect ----------------------------------------------------------------------------

    def _connect(self, volume_id: str, connection: Connection, *, multipath: bool) -> str:
        commands = self._commands(self._connect_timeout)
        execute = self._keeping(connection.targets, commands)
        connector = self._make_connector(execute, multipath)
        future = self._calls.run(
            volume_id,
            lambda: connector.connect_volume(brick_properties(connection)),
            commands=commands,
            timeout=self._connect_timeout,
            grace=self._grace,
        )
        failure = future.exception()
        ended = commands.logins_ended(self._grace)
        if commands.login_abandoned or not ended:
            self._calls.leave_behind(volume_id, future, settles_in=LOGIN_SECONDS)
        if failure is None:
            return future.result()["path"]
        if commands.login_abandoned or not ended:
            raise iscsid_silent() from failure
        error = self._failure(failure, Code.CONNECT_FAILED, commands)
        self._clean_up(volume_id, connection)
        raise error from failure

    def _keeping(self, targets: Sequence[Target], commands: Commands) -> Execute:
        """``commands`` for a connect, which take nothing away under somebody else's feet.

        os-brick takes any device-mapper device over a path for its map, and where that doesn't work
        as one, it removes the path by force: a volume group in the volume that the host activated.
        """

        def execute(*command: str, **options: object) -> tuple[str, str]:
            if command[:2] in _OF_MAPS or _deleted(command) is not None:
                devices = self._sysfs.lun_devices(targets)
                own = {each.name for each in self._holders.own_maps(devices)}
                held = {name for device in devices for name in self._sysfs.holders(device.name)}
                if held - own:
                    raise NotOursError(_held(devices[0].path, held - own))
            return commands(*command, **options)

        return execute

    def _require_map(self, devices: Sequence[Device], mapped: bool | None) -> None:
        self._maps.require(lambda: bool(self._holders.own_maps(devices)), mapped=mapped)

    def _clean_up(self, volume_id: str, connection: Connection) -> None:
        """Take away what a failed connect left. The undo does it again, and reports."""
        try:
            self.disconnect(volume_id, connection, expected_wwn=None)
        except AttachdError as exc:
            LOG.warning("A failed connect of volume %s left something: %s", volume_id, exc)

    # --- extend -----------------------------------------------------------------------------

    def _grow(
        self, connection: Connection, expected_wwn: str, size_bytes: int, commands: Commands
    ) -> int | None:
        devices = self._sysfs.lun_devices(connection.targets)
        for device in devices:
            self._identity.check_wwn(device, expected_wwn)
        whole: tuple[Block, ...] = (*devices, *self._holders.own_maps(devices))
        if any(each.size_bytes < size_bytes for each in whole):
            check_lsscsi()
            # A rescan is no login: it needs no credentials.
            multipath = bool(self._holders.own_maps(devices))
            self._make_connector(commands, multipath).extend_volume(
                brick_properties(connection.without_secrets())
            )
            devices = self._sysfs.lun_devices(connection.targets)
        if not devices:
            return None
        whole = (*devices, *self._holders.own_maps(devices))
        smallest = min(whole, key=lambda each: each.size_bytes)
        if smallest.size_bytes < size_bytes:
            raise AttachdError(
                Code.EXTEND_FAILED,
                "The volume grew in Cinder, and its device on this host didn't.",
                details=f"{smallest.path} has {smallest.size_bytes} bytes, not {size_bytes}.",
                resolution="See the backend's export of it, and cinder-volume's log.",
            )
        return smallest.size_bytes

    # --- disconnect -------------------------------------------------------------------------

    def _remove(
        self,
        connection: Connection,
        expected_wwn: str | None,
        commands: Commands,
        *,
        given_up: bool,
    ) -> None:
        """An iscsid that was just restarted gets some time: it doesn't know its sessions yet."""
        if given_up:
            self._end_dead_sessions(connection.targets, expected_wwn, commands)
        trying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(iscsid_is_starting),
            stop=tenacity.stop_after_delay(_ISCSID_STARTS),
            wait=rising,
            reraise=True,
        )
        for attempt in trying:
            with attempt:
                try:
                    self._remove_once(connection, expected_wwn, commands)
                except AttachdError as exc:
                    exc.touched = exc.touched or attempt.retry_state.attempt_number > 1
                    raise

    def _remove_once(
        self, connection: Connection, expected_wwn: str | None, commands: Commands
    ) -> None:
        devices = self._sysfs.lun_devices(connection.targets)
        self._check_own(devices, expected_wwn)
        self._holders.check_released(devices, commands)
        try:
            self._take_away(connection, devices, expected_wwn, commands)
        except AttachdError as exc:
            exc.touched = True  # whatever it says of its own step
            raise

    def _end_dead_sessions(
        self, targets: Sequence[Target], expected_wwn: str | None, commands: Commands
    ) -> None:
        """Log out where the target went with the attachment: nothing there can answer, or be saved.

        Only what was this volume's by what the kernel read when it found the device, what nobody
        holds, and what shares its session with no other LUN.
        """
        for session, target in self._sysfs.sessions_with(targets):
            devices = self._sysfs.session_devices(session)
            own = [d for d in devices if d.lun == target.lun and d.wwn == expected_wwn]
            if not own or own != list(devices) or any(map(self._sysfs.answers, own)):
                continue
            self._holders.check_released(own, commands)
            LOG.warning("Logging out of %s: its target has ended it", session.iqn)
            commands(
                *("iscsiadm", "-m", "session", "-r", str(session.sid), "--logout"),
                run_as_root=True,
                check_exit_code=[0, NO_RECORDS],
            )

    def _take_away(
        self,
        connection: Connection,
        devices: Sequence[Device],
        expected_wwn: str | None,
        commands: Commands,
    ) -> None:
        maps = self._holders.own_maps(devices)
        wwids = {wwn for wwn in (expected_wwn, *(device.wwn for device in devices)) if wwn}
        # os-brick flushes the one disk that it is told of, and no path of a map.
        answering_paths = [device for device in devices if self._sysfs.answers(device)]
        unflushed: tuple[Block, ...] = (*maps, *answering_paths) if maps else tuple(devices[1:])
        for each in unflushed:
            commands.as_root("blockdev", "--flushbufs", each.path)
        execute = self._checking_again(connection.targets, expected_wwn, commands)
        told: tuple[Block, ...] = (*maps, *devices)
        self._make_connector(execute, bool(maps)).disconnect_volume(
            brick_properties(connection.without_secrets()),
            {"type": "block", "path": told[0].path} if told else {},
        )
        self._exclusively(lambda: self._finish(connection.targets, wwids, commands))
        for each in maps:
            # multipathd would make a map at once of whatever has this name one day.
            commands("multipath", "-w", each.wwid, run_as_root=True, check_exit_code=[0, 1])

    def _checking_again(
        self, targets: Sequence[Target], expected_wwn: str | None, commands: Commands
    ) -> Execute:
        """``commands``, which refuse to delete a disk or a map that is another's or held by now.

        A guest may have been started, or Cinder have given the LUN away, while os-brick waited; a
        map may have come, or another path.
        """
        judged: set[str] = set()  # with their map; a path that is down can't be asked by itself

        def execute(*command: str, **options: object) -> tuple[str, str]:
            if command[:2] == _FLUSH_MAP:
                devices = self._sysfs.lun_devices(targets)
                self._check_map_of(devices, command[2])
                self._check_own(devices, expected_wwn)
                self._holders.check_released(devices, commands)
                judged.update(device.name for device in devices)
            elif (name := _deleted(command)) is not None:
                about = [each for each in self._sysfs.lun_devices(targets) if each.name == name]
                if not about:
                    raise _unknown(name)
                if name not in judged or self._sysfs.answers(about[0]):
                    self._check_own(about, expected_wwn)
                self._holders.check_released(about, commands)
            return commands(*command, **options)

        return execute

    def _check_map_of(self, devices: Sequence[Device], title: str) -> None:
        if title not in {each.title for each in self._holders.own_maps(devices)}:
            raise _unknown(title)

    def _check_own(self, devices: Sequence[Device], expected_wwn: str | None) -> None:
        """Raise wrong-device where another volume answers; None: it was never known."""
        if expected_wwn is not None:
            self._identity.check_own(devices, expected_wwn)

    def _finish(self, targets: Iterable[Target], wwids: Iterable[str], commands: Commands) -> None:
        """Clean up behind os-brick and look: a session without devices may be someone's login."""
        removed = self._remove_leftovers(targets, commands)
        self._remove_empty_maps(wwids, commands)
        left = self._idle_records(targets, commands) if removed else []
        self._prove_absence(targets, wwids, left)

    def _remove_empty_maps(self, wwids: Iterable[str], commands: Commands) -> None:
        """A map whose paths have all gone answers nobody, and would wait for the next volume."""
        for each in self._empty_maps(wwids):
            LOG.warning("Removing the map %s: it has no path any more", each.title)
            try:
                self._holders.check_map_released(each, commands)
                commands.as_root(*_FLUSH_MAP, each.title)
            except (AttachdError, ProcessExecutionError):
                if self._sysfs.map(each.name) is not None:  # else multipathd was faster
                    raise

    def _empty_maps(self, wwids: Iterable[str]) -> list[Map]:
        found = [each for wwid in wwids for each in self._sysfs.maps_of(wwid)]
        return [each for each in found if not each.devices]

    def _remove_leftovers(self, targets: Iterable[Target], commands: Commands) -> bool:
        """What os-brick doesn't find: sessions without a node record, records without a session.

        Was there any such record?
        """
        for session in self._idle_sessions(targets):
            LOG.warning("Logging out of %s: nothing uses its session any more", session.iqn)
            commands(
                *("iscsiadm", "-m", "session", "-r", str(session.sid), "--logout"),
                run_as_root=True,
                check_exit_code=[0, NO_RECORDS],
            )
        records = self._idle_records(targets, commands)
        for target in records:
            commands(
                *("iscsiadm", "-m", "node", "-T", target.iqn, "-p", target.portal),
                *("--op", "delete"),
                run_as_root=True,
                check_exit_code=[0, NO_RECORDS],
            )
        return bool(records)

    def _prove_absence(
        self, targets: Iterable[Target], wwids: Iterable[str], records: Iterable[Target]
    ) -> None:
        left = [device.path for device in self._sysfs.lun_devices(targets)]
        left += [f"the session with {session.iqn}" for session in self._idle_sessions(targets)]
        left += [f"the map {each.title}" for each in self._empty_maps(wwids)]
        left += [f"the node record of {t.iqn}" for t in records]
        if left:
            raise AttachdError(
                Code.DISCONNECT_FAILED,
                "Something of the volume is left on this host.",
                details=f"Left: {', '.join(left)}.",
                resolution="See whether the target answers: iscsiadm -m session -P 3. "
                "Then resume the operation.",
            )

    def _idle_sessions(self, targets: Iterable[Target]) -> list[Session]:
        """Sessions with these targets that no LUN's device uses."""
        sessions = {session.sid: session for session, _ in self._sysfs.sessions_with(targets)}
        return [s for s in sessions.values() if not self._sysfs.session_devices(s)]

    def _idle_records(self, targets: Iterable[Target], commands: Commands) -> list[Target]:
        """The targets that have a node record and no session."""
        answer, _ = commands(
            "iscsiadm", "-m", "node", run_as_root=True, check_exit_code=[0, NO_RECORDS]
        )
        known = _parse_nodes(answer)
        sessions = self._sysfs.sessions()
        return [
            target
            for target in targets
            if (split_portal(target.portal), target.iqn) in known
            and not any(session.is_to(target) for session in sessions)
        ]

    def _commands(self, timeout: float) -> Commands:
        return Commands(
            execute=self._execute, deadline=Deadline(timeout), helper_alive=self._helper_alive
        )

    def _failure(self, failure: BaseException, code: Code, commands: Commands) -> AttachdError:
        if not self._helper_alive():
            return helper_lost(touched=True)
        return translated(failure, code, login_status=commands.login_status)


def check_lsscsi() -> None:
    """Raise Unreachable where os-brick couldn't find the paths of what it shall rescan.

    It runs in the daemon's own process, and so is found, or not, where it is looked for here.
    """
    if shutil.which("lsscsi") is None:
        raise Unreachable(
            Code.ISCSI_UNAVAILABLE,
            "The program lsscsi is missing: os-brick finds by it what it rescans.",
            resolution="Install it (apt install lsscsi).",
            world=World.HOST,
            touched=False,
        )


def _deleted(command: Sequence[str]) -> str | None:
    """The disk that a command deletes; None: it deletes none."""
    found = (_DELETION.fullmatch(str(word)) for word in command)
    return next((match[1] for match in found if match), None)


def _held(path: str, holders: Iterable[str]) -> AttachdError:
    return AttachdError(
        Code.STILL_IN_USE,
        f"The host itself uses {path}.",
        details=f"Held by {', '.join(f'/dev/{name}' for name in sorted(holders))}.",
        resolution="Keep LVM on this host away from the volumes of guests (global_filter in "
        "/etc/lvm/lvm.conf), and deactivate what it activated: vgchange -an.",
    )


def _unknown(name: str) -> AttachdError:
    return AttachdError(
        Code.STILL_IN_USE,
        f"os-brick was about to take {name} away, which isn't proven to be this volume's.",
        resolution="See what it is: lsblk, multipath -ll. Then resume the operation.",
    )


def _parse_nodes(listing: str) -> set[tuple[tuple[str, int], str]]:
    """Lines of ``portal,tag iqn``."""
    lines = (line.split() for line in listing.splitlines())
    return {(split_portal(line[0]), line[1]) for line in lines if len(line) > 1}
