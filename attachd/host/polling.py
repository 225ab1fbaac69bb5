"""Pauses between two looks at what comes soon, and sends no event."""

from __future__ import annotations

import tenacity

rising = tenacity.wait_exponential(multiplier=0.02, max=0.5)
"""From 0.02 s, doubled each time, to 0.5 s."""
