"""The doctor: is this host fit? Looks and judges, and changes nothing.

* ``findings``: everything that can be found, each with its severity and remedy;
  docs/reference/doctor.md is made of it;
* ``ports``: what is asked of the worlds; ``host``, ``guests``, ``cinder``, ``daemon``: one
  judgement a check, and the examinations that ask and judge;
* ``doctor``: runs them side by side, each to its deadline.

"I could not look" is a finding of its own (``unknown``), and never fitness.
"""
