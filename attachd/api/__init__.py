"""The HTTP API on the Unix socket: what attachctl, and anyone else on this host, talks to.

It translates and guards, and decides nothing: a request is checked against its JSON Schema, handed
to the engine, and the answer is written as JSON. Whoever isn't root, the daemon's own user or a
member of its group gets the same refusal for everything.
"""
