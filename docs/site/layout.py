"""A page that stands alone in its part of the navigation needs no list of its siblings: the text gets that room."""

from __future__ import annotations

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    if page.parent is None:
        page.meta["hide"] = ["navigation"]
    return markdown
