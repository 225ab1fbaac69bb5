"""The numbers that Prometheus scrapes, in a registry of the daemon's own.

* ``work.py``: what operations did, counted while they do it (an observer of the engine's);
* ``audits.py``: what the latest audit found, and when that was;
* ``standing.py``: what is open and what is attached, read from the journal at each scrape, so that
  a restart doesn't lose it;
* ``exposition.py``: all of it as text, on the API's socket and, where it is asked for, over TCP.

A scrape reads the journal and /proc, and asks no other world: it never waits for Cinder or libvirt.
Labels are of few values each, but for those of ``attachd_attachment_info``.
"""
