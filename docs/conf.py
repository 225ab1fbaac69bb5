"""How Sphinx builds these pages: ``make docs``."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent / "extensions"), str(Path(__file__).parents[1])]

project = "attachd"
extensions = [
    "myst_parser",
    "oslo_config.sphinxext",
    "sphinxarg.ext",
    "sphinxcontrib.openapi",
    "api_document",
    "tables",
]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "attachd"
html_show_copyright = False
exclude_patterns = ["extensions", "diagrams/*.md"]  # those are for code-hosting sites
nitpicky = True
