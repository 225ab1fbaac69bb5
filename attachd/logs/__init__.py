"""attachd's log: where it goes, and what each of its lines is about.

* ``subject.py``: the operation, attachment, volume and guest that a thread is at work on; bound
  once, they are on every line that is logged there, also by the libraries;
* ``journald.py``: lines as journald's entries, with those as fields of their own;
* ``setup.py``: oslo.log's set-up, and journald in the place of a stream that leads there.

Each line goes out with what looks like a secret masked, wherever it goes.
"""
