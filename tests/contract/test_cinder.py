"""What every Cinder does, fake or real."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import replace

import pytest

from attachd.errors import AttachdError, Code, Refused
from attachd.model import CinderAttachment, Mode
from tests.contract.conftest import PREFIX, CinderWorld

CONNECTOR = {
    "initiator": "iqn.1993-08.org.debian:01:contract",
    "ip": "127.0.0.1",
    "host": "contract",
    "platform": "x86_64",
    "os_type": "linux",
    "multipath": False,
    "do_local_attach": False,
}


@pytest.fixture
def instance_id() -> str:
    return str(uuid.uuid4())


def create(
    world: CinderWorld, volume_id: str, instance_id: str, prior: tuple[str, ...] = ()
) -> CinderAttachment:
    return world.cinder.create_attachment(
        volume_id, instance_id=instance_id, prior_attachment_ids=prior
    )


def status(world: CinderWorld, volume_id: str) -> str:
    volume = world.cinder.get_volume(volume_id)
    assert volume is not None
    return volume.status


def attached_volume(world: CinderWorld, instance_id: str) -> tuple[str, str]:
    volume_id = world.new_volume()
    attachment = create(world, volume_id, instance_id)
    world.cinder.update_attachment(attachment.attachment_id, CONNECTOR)
    world.cinder.complete_attachment(attachment.attachment_id)
    return volume_id, attachment.attachment_id


def unique_name() -> str:
    return f"{PREFIX}{uuid.uuid4()}"


# --- volumes --------------------------------------------------------------------------------


def test_a_volume_is_found_by_id_and_by_name(cinder_world: CinderWorld) -> None:
    name = unique_name()
    volume_id = cinder_world.new_volume(name=name)
    found = cinder_world.cinder.find_volume(volume_id)
    assert (
        found == cinder_world.cinder.find_volume(name) == cinder_world.cinder.get_volume(volume_id)
    )
    assert found.volume_id == volume_id
    assert found.name == name
    assert found.status == "available"
    assert found.size_gib == 1
    assert found.encrypted is False
    assert found.attachment_ids == ()
    assert cinder_world.cinder.find_volume(volume_id.upper()) == found


def test_a_name_is_exact(cinder_world: CinderWorld) -> None:
    name = unique_name()
    cinder_world.new_volume(name=name)
    for other in (name.upper(), f"{name} ", name[:-1], f"{name}*", f"%{name}%"):
        with pytest.raises(Refused) as caught:
            cinder_world.cinder.find_volume(other)
        assert caught.value.code == Code.VOLUME_NOT_FOUND


def test_two_of_one_name_are_ambiguous(cinder_world: CinderWorld) -> None:
    name = unique_name()
    one, other = cinder_world.new_volume(name=name), cinder_world.new_volume(name=name)
    with pytest.raises(Refused) as caught:
        cinder_world.cinder.find_volume(name)
    assert caught.value.code == Code.VOLUME_AMBIGUOUS
    assert cinder_world.cinder.find_volume(one).volume_id == one
    assert cinder_world.cinder.find_volume(other).volume_id == other


def test_volumes_in_a_status_newest_first(cinder_world: CinderWorld, instance_id: str) -> None:
    taken, _ = attached_volume(cinder_world, instance_id)
    older, newer = cinder_world.new_volume(), cinder_world.new_volume()

    def listed(status: str, limit: int = 50) -> list[str]:
        volumes = cinder_world.cinder.list_volumes(status=status, limit=limit)
        return [volume.volume_id for volume in volumes]

    available = listed("available")
    assert available.index(newer) < available.index(older)
    assert taken not in available
    assert taken in listed("in-use")
    assert listed("available", limit=1) == available[:1]
    (whole,) = cinder_world.cinder.list_volumes(status="available", limit=1)
    assert whole == cinder_world.cinder.get_volume(whole.volume_id)
    assert listed("no such status") == []


def test_a_name_may_look_like_an_id(cinder_world: CinderWorld) -> None:
    name = str(uuid.uuid4())
    volume_id = cinder_world.new_volume(name=name)
    assert cinder_world.cinder.find_volume(name).volume_id == volume_id


@pytest.mark.parametrize("name", ["a/b?c=d&e#f", "Größe 100 % ñ 数据", "'\"`$(x)", "../.."])
def test_a_name_may_have_odd_characters(cinder_world: CinderWorld, name: str) -> None:
    name = f"{unique_name()} {name}"
    volume_id = cinder_world.new_volume(name=name)
    assert cinder_world.cinder.find_volume(name).volume_id == volume_id


@pytest.mark.parametrize(
    "reference",
    [
        "",
        ".",
        "..",
        "../volumes",
        "/",
        "a/b?c=d&all_tenants=0#e",
        "%2e%2e%2f",
        "no such volume",
        "💾",
        "a\x00b",
        "a\nb",
        "x" * 300,
        str(uuid.uuid4()),
        uuid.uuid4().hex,
    ],
)
def test_what_isnt_there_is_not_found(cinder_world: CinderWorld, reference: str) -> None:
    with pytest.raises(Refused) as caught:
        cinder_world.cinder.find_volume(reference)
    assert caught.value.code == Code.VOLUME_NOT_FOUND
    assert cinder_world.cinder.get_volume(reference) is None
    assert cinder_world.cinder.get_attachment(reference) is None


# --- attach ---------------------------------------------------------------------------------


def test_an_attach_step_by_step(cinder_world: CinderWorld, instance_id: str) -> None:
    cinder = cinder_world.cinder
    volume_id = cinder_world.new_volume()

    created = create(cinder_world, volume_id, instance_id)
    assert (created.volume_id, created.instance_id) == (volume_id, instance_id)
    assert (created.status, created.connection) == ("reserved", None)
    assert status(cinder_world, volume_id) == "reserved"
    assert cinder.list_attachments(volume_id) == (created,)
    assert cinder.get_attachment(created.attachment_id) == created

    updated = cinder.update_attachment(created.attachment_id, CONNECTOR)
    assert updated.connection is not None
    assert updated == replace(created, connection=updated.connection), "the status is an old one"
    assert status(cinder_world, volume_id) == "attaching"
    assert cinder.find_volume(volume_id).attachment_ids == ()
    attaching = replace(updated, status="attaching")
    assert cinder.get_attachment(created.attachment_id) == attaching
    assert cinder.update_attachment(created.attachment_id, CONNECTOR) == attaching

    cinder.complete_attachment(created.attachment_id)
    assert status(cinder_world, volume_id) == "in-use"
    assert cinder.find_volume(volume_id).attachment_ids == (created.attachment_id,)
    attached = cinder.get_attachment(created.attachment_id)
    assert attached == replace(updated, status="attached")


def test_a_connection_is_iscsi_with_its_secret_hidden(
    cinder_world: CinderWorld, instance_id: str
) -> None:
    volume_id = cinder_world.new_volume()
    attachment = create(cinder_world, volume_id, instance_id)
    updated = cinder_world.cinder.update_attachment(attachment.attachment_id, CONNECTOR)
    connection = updated.connection
    assert connection is not None
    assert (connection.protocol, connection.mode) == ("iscsi", Mode.RW)
    assert {target.iqn.endswith(volume_id) for target in connection.targets} == {True}
    assert connection.chap is not None
    assert connection.chap.password
    assert connection.chap.password not in repr(updated)


def test_what_was_completed_stays_so(cinder_world: CinderWorld, instance_id: str) -> None:
    """Recovery may say everything twice."""
    cinder = cinder_world.cinder
    volume_id, attachment_id = attached_volume(cinder_world, instance_id)
    cinder.complete_attachment(attachment_id)
    again = cinder.update_attachment(attachment_id, CONNECTOR)
    assert again.status == "attached"
    assert status(cinder_world, volume_id) == "in-use"
    with pytest.raises(Refused):
        create(cinder_world, volume_id, str(uuid.uuid4()))
    assert len(cinder.list_attachments(volume_id)) == 1


def test_a_detach_step_by_step_and_rolled_back(cinder_world: CinderWorld, instance_id: str) -> None:
    cinder = cinder_world.cinder
    volume_id, attachment_id = attached_volume(cinder_world, instance_id)

    cinder.begin_detaching(volume_id)
    assert status(cinder_world, volume_id) == "detaching"
    with pytest.raises(Refused) as caught:
        cinder.begin_detaching(volume_id)
    assert caught.value.code == Code.CINDER_REFUSED
    for _ in range(2):
        cinder.roll_detaching(volume_id)
        assert status(cinder_world, volume_id) == "in-use"

    cinder.begin_detaching(volume_id)
    cinder.delete_attachment(attachment_id)
    assert status(cinder_world, volume_id) == "available"
    assert cinder.get_attachment(attachment_id) is None
    assert cinder.list_attachments(volume_id) == ()
    cinder.delete_attachment(attachment_id)


def test_a_reservation_can_be_given_back(cinder_world: CinderWorld, instance_id: str) -> None:
    volume_id = cinder_world.new_volume()
    attachment = create(cinder_world, volume_id, instance_id)
    cinder_world.cinder.delete_attachment(attachment.attachment_id)
    assert status(cinder_world, volume_id) == "available"


def test_a_reserved_volume_is_refused_to_another_instance(
    cinder_world: CinderWorld, instance_id: str
) -> None:
    volume_id = cinder_world.new_volume()
    mine = create(cinder_world, volume_id, instance_id)
    with pytest.raises(Refused) as caught:
        create(cinder_world, volume_id, str(uuid.uuid4()))
    assert caught.value.code == Code.CINDER_REFUSED
    assert caught.value.touched is False
    assert "reserved" in caught.value.problem.details
    assert cinder_world.cinder.list_attachments(volume_id) == (mine,)


def test_the_same_instance_may_reserve_again(cinder_world: CinderWorld, instance_id: str) -> None:
    """Uniqueness is ours to keep, not Cinder's."""
    volume_id = cinder_world.new_volume()
    first = create(cinder_world, volume_id, instance_id)
    second = create(cinder_world, volume_id, instance_id, (first.attachment_id,))
    assert second.attachment_id != first.attachment_id
    cinder_world.cinder.delete_attachment(first.attachment_id)
    assert status(cinder_world, volume_id) == "reserved"
    cinder_world.cinder.delete_attachment(second.attachment_id)
    assert status(cinder_world, volume_id) == "available"


# --- extending ------------------------------------------------------------------------------


def test_a_volume_in_use_grows(cinder_world: CinderWorld, instance_id: str) -> None:
    cinder = cinder_world.cinder
    volume_id, _ = attached_volume(cinder_world, instance_id)
    for size_gib in (2, 2, 1):  # so large already: nothing happens
        cinder.extend_volume(volume_id, size_gib)
        volume = cinder.get_volume(volume_id)
        assert volume is not None
        assert (volume.status, volume.size_gib) == ("in-use", 2)
    with pytest.raises(AttachdError) as caught:  # by a quota, or for want of room
        cinder.extend_volume(volume_id, 1_000_000)
    assert caught.value.code == Code.CINDER_REFUSED
    volume = cinder.get_volume(volume_id)
    assert volume is not None
    assert volume.size_gib == 2


def test_an_available_volume_isnt_extended(cinder_world: CinderWorld) -> None:
    """It isn't attached by us any more: whose it is now nobody here knows."""
    volume_id = cinder_world.new_volume()
    with pytest.raises(Refused) as caught:
        cinder_world.cinder.extend_volume(volume_id, 2)
    assert caught.value.code == Code.CINDER_REFUSED
    volume = cinder_world.cinder.get_volume(volume_id)
    assert volume is not None
    assert (volume.status, volume.size_gib) == ("available", 1)


# --- what nobody waits for any more ---------------------------------------------------------


def check_settling(
    world: CinderWorld,
    verb: str,
    request: Callable[[], object],
    *,
    settle: Callable[[float], None],
    shows: Callable[[], bool],
) -> None:
    """An orphan's effect is waited for until it shows, or until it can't come any more."""

    def settle_at_once(age: float) -> None:
        began = time.monotonic()
        settle(age)
        assert time.monotonic() - began < world.orphan_timeout / 2

    for age in (world.orphan_timeout, world.orphan_timeout - 0.2):
        settle_at_once(age)
        assert not shows()
    with world.orphan(verb, request):
        settle(0)
        assert shows()
    settle_at_once(0)
    assert shows()


def test_an_orphaned_create_settles(cinder_world: CinderWorld, instance_id: str) -> None:
    """An earlier attachment of the same guest isn't its effect."""
    cinder = cinder_world.cinder
    volume_id = cinder_world.new_volume()
    prior = (create(cinder_world, volume_id, instance_id).attachment_id,)
    check_settling(
        cinder_world,
        "create",
        lambda: create(cinder_world, volume_id, instance_id, prior),
        settle=lambda age: cinder.settle_create(
            volume_id, instance_id=instance_id, prior_attachment_ids=prior, age=age
        ),
        shows=lambda: len(cinder.list_attachments(volume_id)) > 1,
    )


def test_an_orphaned_update_settles(cinder_world: CinderWorld, instance_id: str) -> None:
    cinder = cinder_world.cinder
    volume_id = cinder_world.new_volume()
    attachment_id = create(cinder_world, volume_id, instance_id).attachment_id

    def exported() -> bool:
        attachment = cinder.get_attachment(attachment_id)
        assert attachment is not None
        return attachment.status == "attaching"

    check_settling(
        cinder_world,
        "update",
        lambda: cinder.update_attachment(attachment_id, CONNECTOR),
        settle=lambda age: cinder.settle_update(attachment_id, age=age),
        shows=exported,
    )
    cinder.delete_attachment(attachment_id)
    cinder.settle_update(attachment_id, age=0)
    assert status(cinder_world, volume_id) == "available"


def test_an_orphaned_begin_settles(cinder_world: CinderWorld, instance_id: str) -> None:
    cinder = cinder_world.cinder
    volume_id, _ = attached_volume(cinder_world, instance_id)
    check_settling(
        cinder_world,
        "begin_detaching",
        lambda: cinder.begin_detaching(volume_id),
        settle=lambda age: cinder.settle_begin(volume_id, age=age),
        shows=lambda: status(cinder_world, volume_id) == "detaching",
    )


def test_an_orphaned_extend_settles(cinder_world: CinderWorld, instance_id: str) -> None:
    cinder = cinder_world.cinder
    volume_id, _ = attached_volume(cinder_world, instance_id)

    def grown() -> bool:
        volume = cinder.get_volume(volume_id)
        assert volume is not None
        return (volume.status, volume.size_gib) == ("in-use", 2)

    check_settling(
        cinder_world,
        "extend",
        lambda: cinder.extend_volume(volume_id, 2),
        settle=lambda age: cinder.settle_extend(volume_id, size_gib=2, age=age),
        shows=grown,
    )


# --- the old style --------------------------------------------------------------------------


def attach(
    world: CinderWorld, volume_id: str, instance_id: str, *, mode: Mode = Mode.RW
) -> CinderAttachment:
    return world.cinder.attach(
        volume_id,
        instance_id=instance_id,
        mountpoint="/dev/vdb",
        mode=mode,
        prior_attachment_ids=(),
    )


def test_an_old_attach_and_detach_step_by_step(cinder_world: CinderWorld, instance_id: str) -> None:
    cinder = cinder_world.cinder
    volume_id = cinder_world.new_volume()

    cinder.reserve(volume_id)
    assert status(cinder_world, volume_id) == "attaching"
    assert cinder.list_attachments(volume_id) == ()
    with pytest.raises(Refused) as caught:
        cinder.reserve(volume_id)
    assert (caught.value.code, caught.value.touched) == (Code.CINDER_REFUSED, False)
    with pytest.raises(Refused):
        create(cinder_world, volume_id, instance_id)

    connection = cinder.initialize_connection(volume_id, CONNECTOR)
    assert (connection.protocol, connection.mode) == ("iscsi", Mode.RW)
    assert {target.iqn.endswith(volume_id) for target in connection.targets} == {True}
    assert connection.chap is not None
    assert connection.chap.password
    assert connection.chap.password not in repr(connection)
    assert status(cinder_world, volume_id) == "attaching"

    attached = attach(cinder_world, volume_id, instance_id)
    assert (attached.volume_id, attached.instance_id) == (volume_id, instance_id)
    assert (attached.status, attached.connection) == ("attached", None)
    assert status(cinder_world, volume_id) == "in-use"
    assert cinder.list_attachments(volume_id) == (attached,)
    assert cinder.get_attachment(attached.attachment_id) == attached
    assert cinder.find_volume(volume_id).attachment_ids == (attached.attachment_id,)
    assert cinder.initialize_connection(volume_id, CONNECTOR) == connection, "again: the same"
    assert attach(cinder_world, volume_id, instance_id) == attached, "again: the same"

    cinder.begin_detaching(volume_id)
    cinder.terminate_connection(volume_id, CONNECTOR)
    assert status(cinder_world, volume_id) == "detaching"
    cinder.terminate_connection(volume_id, CONNECTOR)
    cinder.detach(volume_id, attached.attachment_id)
    assert status(cinder_world, volume_id) == "available"
    assert cinder.list_attachments(volume_id) == ()
    cinder.detach(volume_id, attached.attachment_id)
    assert status(cinder_world, volume_id) == "available"


def test_an_old_reservation_can_be_given_back(cinder_world: CinderWorld) -> None:
    cinder = cinder_world.cinder
    volume_id = cinder_world.new_volume()
    for _ in range(2):
        cinder.reserve(volume_id)
        cinder.unreserve(volume_id)
        assert status(cinder_world, volume_id) == "available"
        cinder.unreserve(volume_id)
        assert status(cinder_world, volume_id) == "available"


def test_terminate_gives_the_reservation_back(cinder_world: CinderWorld) -> None:
    cinder = cinder_world.cinder
    volume_id = cinder_world.new_volume()
    cinder.reserve(volume_id)
    cinder.initialize_connection(volume_id, CONNECTOR)
    cinder.terminate_connection(volume_id, CONNECTOR)
    assert status(cinder_world, volume_id) == "available"


@pytest.mark.exhaustive  # in the lab: a minute of Cinder's own tries
def test_what_lost_its_target_can_be_terminated(
    cinder_world: CinderWorld, instance_id: str
) -> None:
    """os-detach took the target away; LIO's driver then fails to take the initiator from it."""
    cinder = cinder_world.cinder
    volume_id = cinder_world.new_volume()
    cinder.reserve(volume_id)
    cinder.initialize_connection(volume_id, CONNECTOR)
    cinder.detach(volume_id, attach(cinder_world, volume_id, instance_id).attachment_id)
    assert status(cinder_world, volume_id) == "available"
    cinder.reserve(volume_id)
    cinder.terminate_connection(volume_id, CONNECTOR)
    assert status(cinder_world, volume_id) == "available"


def test_an_old_attachment_of_somebody_else_is_refused(
    cinder_world: CinderWorld, instance_id: str
) -> None:
    cinder = cinder_world.cinder
    volume_id = cinder_world.new_volume()
    cinder.reserve(volume_id)
    attached = attach(cinder_world, volume_id, instance_id)
    with pytest.raises(Refused) as caught:
        attach(cinder_world, volume_id, str(uuid.uuid4()))
    assert caught.value.code == Code.CINDER_REFUSED
    with pytest.raises(Refused):
        cinder.reserve(volume_id)
    assert cinder.list_attachments(volume_id) == (attached,)
    cinder.delete_attachment(attached.attachment_id)
    assert status(cinder_world, volume_id) == "available"


def test_an_orphaned_reserve_settles(cinder_world: CinderWorld) -> None:
    cinder = cinder_world.cinder
    volume_id = cinder_world.new_volume()
    check_settling(
        cinder_world,
        "reserve",
        lambda: cinder.reserve(volume_id),
        settle=lambda age: cinder.settle_status(volume_id, was="available", age=age),
        shows=lambda: status(cinder_world, volume_id) == "attaching",
    )
    cinder.unreserve(volume_id)


# --- what can't be done ---------------------------------------------------------------------


def test_an_available_volume_isnt_detached(cinder_world: CinderWorld) -> None:
    volume_id = cinder_world.new_volume()
    with pytest.raises(Refused) as caught:
        cinder_world.cinder.begin_detaching(volume_id)
    assert caught.value.code == Code.CINDER_REFUSED
    assert caught.value.touched is False
    cinder_world.cinder.roll_detaching(volume_id)
    assert status(cinder_world, volume_id) == "available"


@pytest.mark.parametrize("nothing", [str(uuid.uuid4()), "no-id", "../.."])
def test_what_isnt_there_is_refused(
    cinder_world: CinderWorld, instance_id: str, nothing: str
) -> None:
    cinder = cinder_world.cinder
    verbs: list[Callable[[str], object]] = [
        *(cinder.begin_detaching, cinder.roll_detaching, cinder.reserve, cinder.unreserve),
        lambda volume: cinder.initialize_connection(volume, CONNECTOR),
        lambda volume: cinder.terminate_connection(volume, CONNECTOR),
        lambda volume: attach(cinder_world, volume, instance_id),
        lambda volume: cinder.settle_status(volume, was="available", age=0),
    ]
    for verb in verbs:
        with pytest.raises(Refused) as caught:
            verb(nothing)
        assert caught.value.code == Code.VOLUME_NOT_FOUND
    with pytest.raises(Refused) as caught:
        cinder.extend_volume(nothing, 2)
    assert caught.value.code == Code.VOLUME_NOT_FOUND
    with pytest.raises(Refused) as caught:
        cinder.settle_begin(nothing, age=0)
    assert caught.value.code == Code.VOLUME_NOT_FOUND
    with pytest.raises(Refused) as caught:
        create(cinder_world, nothing, instance_id)
    assert caught.value.code == Code.VOLUME_NOT_FOUND
    with pytest.raises(Refused) as caught:
        cinder.update_attachment(nothing, CONNECTOR)
    assert caught.value.code == Code.CINDER_REFUSED
    with pytest.raises(Refused) as caught:
        cinder.complete_attachment(nothing)
    assert caught.value.code == Code.CINDER_REFUSED
    assert cinder.list_attachments(nothing) == ()
    cinder.detach(nothing, nothing)
    cinder.delete_attachment(nothing)


def test_a_view_for_a_request_sees_the_same(cinder_world: CinderWorld, instance_id: str) -> None:
    volume_id = cinder_world.new_volume()
    mine = cinder_world.cinder.for_request(f"req-{uuid.uuid4()}")
    attachment = mine.create_attachment(volume_id, instance_id=instance_id, prior_attachment_ids=())
    assert cinder_world.cinder.list_attachments(volume_id) == (attachment,)
    mine.delete_attachment(attachment.attachment_id)
