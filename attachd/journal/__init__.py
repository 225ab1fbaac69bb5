"""attachd's durable memory: SQLite, write-ahead log, synchronous=FULL before every effect.

It owns journal.db and its ballast; it does no I/O in any other world and decides nothing. Whoever
writes an intent to it gets back only when the row is on the disk, which is what "intent before
effect" (law 1) rests on. No secret is ever handed to it (law 6): a Connection is stored without
credentials.

* ``journal.py``: the verbs.
* ``rows.py``: records to rows and back; a damaged row is an error that names itself.
* ``database.py``: opening, pragmas, migrations, the translation of SQLite's errors.
* ``ballast.py``: room on the disk, held back so that a full disk never stops an undo.
"""
