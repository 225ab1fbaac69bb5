"""OpenTelemetry: each operation that came to rest, as a trace, to a collector of the site's own.

The trace's id is the operation's: whoever knows the one finds the other. A run of the operation is
a span, under it each step that it ran, under that each call of an outer library. A resumed
operation has another run in the same trace, which links to the runs before it.

* ``spans.py``: from the journal's rows to spans; pure;
* ``exporter.py``: what waits to be told, bounded, and the thread that tells it;
* ``sending.py``: OpenTelemetry's SDK, which is an extra (attachd[otlp]): imported only where
  ``[trace] otlp_endpoint`` asks for it.

No operation waits for any of it, or fails by it.
"""
