"""The drawn story of one operation: who asked whom, for how long, what failed, what was undone.

It is made of what the API answers alone, so that the client draws it and the daemon has nothing to
do with it.

* ``story.py``: the nouns: a Story has participants, steps, and messages in their order.
* ``telling.py``, ``calls.py``: the API's documents become a Story.
* ``placing.py``: which step a call belongs to. The journal has both, each with its own times.
* ``words.py``: what each step is for, and what its guest is asked, in words.
* ``rest.py``: a REST request and its answer, as lines.
* ``text.py``, ``mermaid.py``, ``plantuml.py``, ``seqdiag.py``, ``svg.py``: one renderer each, a
  function from a Story to a string; ``drawing.py`` imports the one that is asked for.
* ``canvas.py``, ``columns.py``: what the SVG is drawn with.

Its rules: a Story's texts are printable and of one line each, and a renderer escapes what its
language would misread, since guests and volumes may have any name. An unknown word (the daemon may
be newer than this client) is drawn as it is. What isn't known is left out or said to be unknown,
never guessed.
"""

FORMS = ("text", "mermaid", "plantuml", "seqdiag", "svg")
"""What a story can be drawn in. Each is the name of a module here."""
