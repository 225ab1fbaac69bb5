"""The pure plan of an operation: from its steps and its history to the one next action.

No I/O, no clock, no thread. The engine asks :func:`attachd.saga.plan.plan` what comes next, does
it, journals it, and asks again; recovery asks the same function with a longer history.

* ``history.py``: what happened to an operation, and the table that folds it into where each step
  stands.
* ``plan.py``: the table that turns standings into the next action.
* ``resumption.py``: after a crash, or after a world was out of reach: forward or back?
"""
