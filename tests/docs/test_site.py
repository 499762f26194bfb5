"""The documentation as a site, and its pages and pictures that are made by commands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs.pictures.draw import PICTURES
from slipstream.cli.reference import reference

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(made)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},  # an advertisement
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return made


def test_the_site_is_built_without_a_warning_from_every_page(site: Path) -> None:
    pages = [str(page.relative_to(DOCS)).replace("README.md", "index.md") for page in DOCS.rglob("*.md")]
    assert not [page for page in pages if not (site / page).with_suffix(".html").is_file()]


def test_a_link_out_of_the_docs_leads_to_a_page_of_the_site(site: Path) -> None:
    assert 'href="repository/bench/index.html"' in (site / "scaling.html").read_text()
    back = (site / "repository" / "bench" / "index.html").read_text()
    assert 'href="../../evaluation.html"' in back
    assert "def plan(" in re.sub(r"<[^>]+>", "", (site / "repository" / "encoder" / "plan.py.html").read_text())


def test_who_reads_the_site_asks_no_other_host(site: Path) -> None:
    loaded = r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"?https?:|<link\b(?![^>]*canonical)[^>]*\bhref=\"?https?:"
    assert not [page.name for page in site.rglob("*.html") if re.search(loaded, page.read_text())]
    assert not [
        sheet.name for sheet in site.rglob("*.css") if re.search(r"url\(['\"]?https?:|@import", sheet.read_text())
    ]


def test_the_page_of_the_command_line_is_what_its_help_says() -> None:
    assert (DOCS / "command-line.md").read_text() == reference(), "run `make docs`"


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_what_its_code_draws(name: str) -> None:
    assert (DOCS / "images" / f"{name}.svg").read_text() == PICTURES[name]().svg(), "run `make docs`"
