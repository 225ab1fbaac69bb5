"""The four worlds side by side: where they disagree, and what to do about it.

* ``findings.py``: what can be found, as data.
* ``comparison.py``: pure: from what each world says of an attachment to the findings.
* ``auditor.py``: asks the worlds. It changes nothing.
* ``watch.py``: does so now and then, and tells the log.
"""
