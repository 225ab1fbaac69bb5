"""The doctor with all of its examinations, over worlds that a test may break."""

from __future__ import annotations

from dataclasses import dataclass, field

from attachd.doctor import cinder, daemon, guests, host
from attachd.doctor.catalogue import Check
from attachd.doctor.doctor import Doctor
from attachd.doctor.findings import Finding
from attachd.model import AttachFlow, Multipath
from tests.fakes.doctor import (
    LOCKS,
    SOCKET,
    FakeCinderSurvey,
    FakeHostSurvey,
    FakeJournalHealth,
    FakeLibvirt,
)

PATIENCE = 30.0


@dataclass
class Practice:
    """``group``, ``multipath`` and ``attach_flow`` as configured."""

    host: FakeHostSurvey = field(default_factory=FakeHostSurvey)
    libvirt: FakeLibvirt = field(default_factory=FakeLibvirt)
    cinder: FakeCinderSurvey = field(default_factory=FakeCinderSurvey)
    journal: FakeJournalHealth = field(default_factory=FakeJournalHealth)
    group: str = "attachd"
    multipath: Multipath = Multipath.OFF
    attach_flow: AttachFlow | None = None
    running: bool = True

    def examine(self) -> tuple[Finding, ...]:
        """Everything."""
        return self.doctor().examine()

    def doctor(self) -> Doctor:
        """One that looks at these worlds."""
        return Doctor(
            examinations=(
                *daemon.examinations(
                    self.host,
                    self.journal,
                    socket=SOCKET,
                    group=self.group,
                    lock_path=LOCKS,
                    brick_lock_path=LOCKS,
                    running=self.running,
                ),
                *guests.examinations(self.libvirt, self.host),
                *host.examinations(self.host, multipath=self.multipath),
                cinder.examination(lambda: self.cinder, attach_flow=self.attach_flow),
            ),
            patience=PATIENCE,
        )

    def of(self, check: Check) -> tuple[Finding, ...]:
        """What one check came to."""
        return tuple(finding for finding in self.examine() if finding.check is check)

    def troubles(self) -> dict[str, str]:
        """The codes of all that isn't well, with their severities."""
        return {
            finding.code: str(finding.severity)
            for finding in self.examine()
            if finding.severity != "ok"
        }
