"""Cinder: the attachment record and the volume's status, asked for over HTTP.

It owns everything that is said to Cinder and Keystone, and fulfils the ``Cinder`` Protocol:

* ``session`` authenticates, finds the endpoint, negotiates the microversion, sends one request;
* ``faults`` turns what comes back wrong into errors that know whether anything was touched;
* ``retry`` tries again, and asks what happened before it repeats a call that changes something;
* ``answers`` and ``connection_info`` read Cinder's JSON once, into frozen dataclasses;
* ``client`` has the verbs.

Its rules: a token or CHAP password leaves this room only inside :class:`attachd.model.Chap`; a 404
counts as "gone" only when Cinder itself said it; nothing Cinder answers is taken on trust.
"""
