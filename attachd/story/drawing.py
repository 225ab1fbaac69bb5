"""Draws a story in the form that is asked for; only that form's renderer is imported."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from attachd.story import FORMS
from attachd.story.story import Story


def draw(story: Story, form: str, *, columns: int | None = None) -> str:
    """The story in one of FORMS. ``columns``: the room that text has, if it is known."""
    if form not in FORMS:
        raise ValueError(f"no such form: {form}")
    render: Callable[..., str] = import_module(f"{__package__}.{form}").render
    return render(story, columns=columns) if form == "text" and columns else render(story)
