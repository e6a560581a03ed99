"""The documentation as a site, in site/: `sphinx-build -W -q -c docs . site` (CONTRIBUTING.md has the whole command).

The repository is the source folder, with the README as the start page, so that links are the same here and where pages
are read one by one.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from sphinx.application import Sphinx

project = html_title = "ice_ray"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
include_patterns = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/*.md", "tools/*.md", "benchmarks/**.md"]
root_doc = "README"
myst_heading_anchors = 4
suppress_warnings = ["toc.not_included"]  # the pages of benchmarks are reached from docs/results.md
default_role = "code"  # docstrings have code in single backticks
autodoc_member_order = "bysource"
html_theme = "furo"  # light and dark, as the reader's system has it
html_show_sphinx = False

SIDEBAR = {
    "Use": "first_run python data models search cluster security reading_a_run without_ice_ray",
    "Look up": "api options words moved versions",
    "Understand": "methods speed results",
    "Extend": "own_parts ../CONTRIBUTING ../CHANGELOG",
}


def add_sidebar(app: Sphinx, page: str, source: list[str]) -> None:
    """The order of the pages, which a README has no place for."""
    if page == root_doc:
        for caption, pages in SIDEBAR.items():
            names = "\n".join(
                f"/docs/{name}" if "../" not in name else name.replace("..", "") for name in pages.split()
            )
            source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{names}\n```\n"


def finish(app: Sphinx, error: Exception | None) -> None:
    """Pictures that the README names in HTML, and the start page by the name that servers look for."""
    if error is None:
        site = Path(app.outdir)
        shutil.copytree(Path(app.srcdir) / "images", site / "images", dirs_exist_ok=True)
        shutil.copy(site / f"{root_doc}.html", site / "index.html")


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", add_sidebar)
    app.connect("build-finished", finish)
