"""attachctl: talks to the daemon through its socket alone, and imports nothing of it but errors.

What it draws with (attachd.story) is the client's alone.

It shall start in a blink: what isn't needed for ``--help`` is imported where it is used.
"""
