"""Domains of one guest that do as they are told: for the moments no real libvirt offers at will."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from xml.etree import ElementTree as ET

from attachd.errors import AttachdError
from attachd.guest.domain_xml import DomainXml, FoundDisk, Reading
from attachd.guest.domains import Answer, Domains, Layer
from attachd.guest.failures import unavailable
from tests.unit.guest.domains_xml import PCIE_ROOT, domain, root_ports

Hook = Callable[[], None]


def lost(*, touched: bool) -> AttachdError:
    return unavailable("the daemon died", touched=touched)


class ScriptedDomains(Domains):
    """Keeps the devices of both documents. A step of a script is an answer, or an error to raise.

    Once a script is at its end everything succeeds, and an unplug has its effect at once.
    """

    def __init__(self) -> None:
        self.documents: dict[Layer, list[str]] = {Layer.LIVE: [], Layer.CONFIG: []}
        self.exists = True
        self.saved: DomainXml | None = None
        self.reads: deque[AttachdError | None] = deque()
        self.attaches: deque[AttachdError] = deque()
        self.detaches: deque[Answer | AttachdError] = deque()
        self.resizes: deque[AttachdError | Hook] = deque()
        self.settles: deque[AttachdError | Hook] = deque()
        self.log: list[str] = []

    def read(self, guest_id: str) -> Reading | None:
        error = self.reads.popleft() if self.reads else None
        if error:
            raise error
        if not self.exists:
            return None
        return Reading(
            live=self._document(Layer.LIVE),
            config=self._document(Layer.CONFIG),
            saved=self.saved,
        )

    def attach(self, guest_id: str, xml: str, layers: Layer) -> None:
        self.log.append(f"attach {ET.fromstring(xml).tag} {int(layers)}")  # noqa: S314 - our own
        if self.attaches:
            raise self.attaches.popleft()
        for layer in (Layer.LIVE, Layer.CONFIG):
            if layer & layers:
                self.documents[layer].append(xml)

    def detach(self, guest_id: str, found: FoundDisk, layer: Layer) -> tuple[Answer, str]:
        self.log.append(f"detach {int(layer)}")
        answer = self.detaches.popleft() if self.detaches else None
        if isinstance(answer, AttachdError):
            raise answer
        if answer is None:
            self.remove(layer)
        return answer or Answer.ACCEPTED, "" if answer in (None, Answer.ACCEPTED) else "not so"

    def resize(self, guest_id: str, target: str, size_bytes: int) -> None:
        self.log.append(f"resize {target} {size_bytes}")
        step = self.resizes.popleft() if self.resizes else None
        if isinstance(step, AttachdError):
            raise step
        if step:
            step()

    def settle(self, guest_id: str) -> None:
        self.log.append("settle")
        step = self.settles.popleft() if self.settles else None
        if isinstance(step, AttachdError):
            raise step
        if step:
            step()

    def remove(self, layer: Layer) -> None:
        """Take every disk out."""
        self.documents[layer] = [xml for xml in self.documents[layer] if "<disk" not in xml]

    def _document(self, layer: Layer) -> DomainXml | None:
        if layer not in self.documents:
            return None
        devices = PCIE_ROOT + root_ports(1, 4) + "".join(self.documents[layer])
        return DomainXml.parse(domain(devices, live=layer is Layer.LIVE))
