"""What attachd does, one file an operation; each reads like a table of steps, top to bottom.

An operation owns its steps and what it knows (its record); it drives the worlds through the ports
and journals nothing itself: the engine does, before and after each step. Each ``do`` asks what
happened before it acts, and each ``undo`` is content to find nothing: both may run twice (law 8).

* ``attach.py``, ``detach.py``, ``extend.py``: the steps.
* ``reconnect.py``, ``disconnect.py``: the host's side alone, around a guest's start and end.
* ``fence.py``, ``restore.py``, ``clean_up.py``: what an audit's finding asks for.
* ``adopt.py``, ``release.py``: what another hand attached becomes attachd's, and the other way.
* ``housekeeping.py``: what those that are short and only go forward have in common.
* ``tables.py``: every kind and its table.
* ``references.py``: which attachment a request names.
* ``prechecks.py``: what is refused before anything is touched.
* ``proofs.py``: what must be seen before a step that can't be taken back.
* ``device_names.py``: the guest's device name (vdb, sdc ...).
* ``ports.py``: what is asked of the worlds.
"""
