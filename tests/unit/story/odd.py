"""Texts that a drawing's language, or a terminal, could misread."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from attachd.story.story import Story
from attachd.story.telling import tell
from tests.unit.story.stories import Told, request_of

_NASTY = (
    *("end", "END", "end note", "endnote", "a;b#c", "#59;", "x\ny", "x\r\ny", "wrap:x", "a:b"),
    *(
        "%%{init: {}}%%",
        "%date()",
        "$name",
        "!include x",
        "@enduml",
        "'x",
        "/' x '/",
        "~~x",
        "**b**",
    ),
    *('"', '"""', "'''", "\\", "\\\\", '\\"', "\\n", "===", "= = =", "[x]", "{", "}", "]]>", "<b>"),
    *("<br/>", "&amp;", "<!--", "-->", "<script>", "客機", "\u202eabc", "\u2028", "\x1b[2J", "\0"),
    *(
        "\ufffe",
        "\udcff",
        "é" * 300,
        "x" * 300,
        "",
        " ",
        "  a  b  ",
        "style:x#y;",
        "¥",
        "////",
        "____",
    ),
)

texts = st.one_of(st.sampled_from(_NASTY), st.text(max_size=60))
"""Any text from the outside."""


@dataclass(frozen=True, kw_only=True)
class Words:
    """What others chose of an operation's texts."""

    guest: str
    volume: str
    brief: str
    details: str
    resolution: str
    outcome: str | None


odd_words = st.builds(
    Words,
    guest=texts,
    volume=texts,
    brief=texts,
    details=texts,
    resolution=texts,
    outcome=st.none() | texts,
)


def oddly_told(told: Told, words: Words) -> Story:
    """The same operation with these words wherever some come from the outside."""
    operation = deepcopy(told.operation)
    operation.update(
        guest=words.guest, guest_name=words.guest, volume=words.volume, volume_name=words.volume
    )
    for each in (operation, *operation["steps"]):
        if each["problem"]:
            each["problem"].update(
                brief=words.brief, details=words.details, resolution=words.resolution
            )
    for each in operation["calls"]:
        each["outcome"] = words.outcome
        if each["library"] == "cinder":
            each["request"] = {
                **request_of("PUT /attachments"),
                "url": f"http://{words.guest}",
                "body": {"name": words.brief},
            }
    return tell(operation, told.events, requests=True)


patiently = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""For tests that draw a whole story for each example, beside others."""
