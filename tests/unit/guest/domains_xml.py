"""Domains as libvirt writes them, cut down to what matters here."""

from __future__ import annotations

UUID = "6695eb01-f6a4-4304-b9aa-97f2502e193f"
VOLUME = "0a7c9c1e-3f53-4c3a-8b07-0d1f8f6f2d11"


def pci(bus: int, slot: int = 0, function: int = 0) -> str:
    return (
        f"<address type='pci' domain='0x0000' bus='0x{bus:02x}' slot='0x{slot:02x}' "
        f"function='0x{function:x}'/>"
    )


def root_ports(first: int, last: int) -> str:
    return "".join(
        f"<controller type='pci' index='{index}' model='pcie-root-port'>"
        f"<model name='pcie-root-port'/><target chassis='{index}' port='0x{index + 15:x}'/>"
        f"<alias name='pci.{index}'/>{pci(0, 2, index - 1)}</controller>"
        for index in range(first, last + 1)
    )


def domain(devices: str, *, live: bool = True, metadata: str = "", machine: str = "q35") -> str:
    return f"""
<domain type='kvm'{" id='7'" if live else ""}>
  <name>web</name>
  <uuid>{UUID}</uuid>
  <metadata>{metadata}</metadata>
  <memory unit='KiB'>2097152</memory>
  <vcpu placement='static'>2</vcpu>
  <os><type arch='x86_64' machine='pc-{machine}-9.2'>hvm</type></os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    {devices}
    <audio id='1' type='none'/>
    <watchdog model='itco' action='reset'/>
  </devices>
</domain>"""


PCIE_ROOT = "<controller type='pci' index='0' model='pcie-root'><alias name='pcie.0'/></controller>"
SATA = f"<controller type='sata' index='0'><alias name='ide'/>{pci(0, 31, 2)}</controller>"

SYSTEM_DISK = f"""
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' discard='unmap'/>
      <source file='/var/lib/libvirt/images/web.qcow2' index='2'/>
      <backingStore/>
      <target dev='vda' bus='virtio'/>
      <alias name='virtio-disk0'/>
      {pci(4)}
    </disk>"""

CDROM = """
    <disk type='file' device='cdrom'>
      <driver name='qemu'/>
      <target dev='sda' bus='sata'/>
      <readonly/>
      <alias name='sata0-0-0'/>
      <address type='drive' controller='0' bus='0' target='0' unit='3'/>
    </disk>"""

OUR_DISK = f"""
    <disk type='block' device='disk'>
      <driver name='qemu' type='raw' cache='none' io='native'/>
      <source dev='/dev/disk/by-id/wwn-0x6001405f' index='1'/>
      <backingStore/>
      <target dev='vdb' bus='virtio'/>
      <serial>{VOLUME}</serial>
      <alias name='ua-{VOLUME}'/>
      {pci(5)}
    </disk>"""

NETWORK_DISK = """
    <disk type='network' device='disk'>
      <driver name='qemu' type='raw'/>
      <auth username='cinder'><secret type='ceph' usage='client.cinder'/></auth>
      <source protocol='rbd' name='volumes/volume-1' index='3'>
        <host name='mon' port='6789'/>
      </source>
      <target dev='vdc' bus='virtio'/>
      <serial>volume-of-someone-else</serial>
      <alias name='virtio-disk2'/>
    </disk>"""

# What virt-install makes: seven devices on ports of their own, spare ports behind them, and one
# conventional device behind a bridge that itself sits on a port.
Q35 = domain(
    PCIE_ROOT
    + root_ports(1, 9)
    + f"<controller type='pci' index='10' model='pcie-to-pci-bridge'>{pci(6)}</controller>"
    + SATA
    + f"<controller type='usb' index='0' model='qemu-xhci' ports='15'>{pci(2)}</controller>"
    + f"<controller type='virtio-serial' index='0'>{pci(3)}</controller>"
    + f"<interface type='bridge'><source bridge='br0'/><model type='virtio'/>{pci(1)}</interface>"
    + SYSTEM_DISK
    + CDROM
    + OUR_DISK
    + f"<sound model='ich6'>{pci(10, 1)}</sound>"
    + f"<video><model type='virtio' heads='1'/>{pci(0, 1)}</video>"
    + "<input type='tablet' bus='usb'><address type='usb' bus='0' port='1'/></input>"
    # The host's own address of a passed-through device: no slot of the guest's.
    + "<hostdev mode='subsystem' type='pci' managed='yes'>"
    + "<source><address domain='0x0000' bus='0x07' slot='0x00' function='0x1'/></source>"
    + f"{pci(9)}</hostdev>"
)

I440FX = domain(
    "<controller type='pci' index='0' model='pci-root'><alias name='pci.0'/></controller>"
    + f"<controller type='pci' index='1' model='pci-bridge'>{pci(0, 9)}</controller>"
    + f"<controller type='usb' index='0' model='piix3-uhci'>{pci(0, 1, 2)}</controller>"
    + f"<controller type='ide' index='0'>{pci(0, 1, 1)}</controller>"
    + f"<video><model type='vga'/>{pci(0, 2)}</video>"
    + f"<interface type='bridge'><source bridge='br0'/>{pci(0, 3)}</interface>"
    + SYSTEM_DISK.replace(pci(4), pci(1, 1)),
    machine="i440fx",
)


def scsi(*units: int, controller: int = 0, model: str = "virtio-scsi", bus: int = 1) -> str:
    disks = "".join(
        f"""
        <disk type='block' device='disk'>
          <source dev='/dev/disk/by-id/wwn-{controller}-{unit}'/>
          <target dev='sd{chr(ord("a") + unit)}' bus='scsi'/>
          <alias name='scsi{controller}-0-0-{unit}'/>
          <address type='drive' controller='{controller}' bus='0' target='0' unit='{unit}'/>
        </disk>"""
        for unit in units
    )
    return (
        f"<controller type='scsi' index='{controller}' model='{model}'>{pci(bus)}</controller>"
        + disks
    )


def nova(version: str) -> str:
    return (
        f"<nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/{version}'>"
        "<nova:package version='31.0.0'/><nova:name>web</nova:name></nova:instance>"
    )
