"""attachd: attaches Cinder volumes to libvirt/KVM guests, and takes them off again.

DESIGN in one breath: an attachment stands in four worlds (Cinder, the host, the guest, the
journal); every side effect has a durable intent before it and an outcome after it; what fails is
undone in reverse; what a crash interrupts is settled from the journal and a fresh look.
"""
