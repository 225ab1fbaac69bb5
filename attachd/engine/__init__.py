"""Drives operations: intent, effect, outcome, one step after the other, to their end.

It owns the threads, the locks and the order of things; it asks saga/ what comes next, does it
through operations/, and journals it. It knows of no world by itself.

* ``engine.py``: the facade: requests in, views out; recovery at start; the workers.
* ``resuming.py``: what goes on by itself: what waits for a world, and guests that let go late.
* ``runner.py``: one operation to its end or its rest.
* ``claims.py``: guest and volume for one operation alone (law 5).
* ``progress.py``: those who wait for news of an operation.
* ``patience.py``: how long to wait before what waits for a world is tried again.
* ``views.py``, ``reporting.py``: what callers see, made from the journal's rows.
"""
