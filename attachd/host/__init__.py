"""The host: iSCSI sessions, their LUNs and block devices, through os-brick.

``host.IscsiHost`` fulfils the ``Host`` Protocol and is all that the operations see. The rest of
the room, from the outside in:

* ``privilege``: root's helper, forked before the daemon drops to its own user (law 10);
* ``brick``: the only door to os-brick;
* ``commands``: os-brick's commands under a deadline (law 7); ``calls``: its calls in a thread;
* ``portals``, ``initiator``, ``multipath``, ``connector``, ``guard``: asked before a connect;
* ``iscsi``: connect and disconnect, each proven by a fresh look at ``sysfs`` (law 3), their
  ``failures`` in our words;
* ``identity``, ``vpd``: is this device the volume (law 2)? ``holders``, ``openers``: who still
  holds it?
* ``survey``: what the doctor asks, with ``lvm``, ``neighbours`` and systemd's ``units``.
"""

import sys

# oslo.privsep draws in eventlet where it finds it, never to use it here: a third of the daemon's
# start, 17 MiB, and a deprecation warning. An entry of None makes its import fail, which oslo's
# libraries expect; the threading backend is chosen in brick.py.
sys.modules.setdefault("eventlet", None)  # type: ignore[arg-type]
