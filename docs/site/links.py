"""Links out of docs/ work on the site as they do in the repository.

A page may link to any file of the repository (`../bench/README.md`, `../examples/reader-go`, `../encoder/plan.py`). Such a file
is taken into the site, under `repository/`: Markdown as a page, other text as a page that shows it, a directory by its README.md.
The links of a page that was taken are followed likewise. A link to what is not there stays as it is, and MkDocs warns.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_TAKEN = PurePosixPath("repository")
_LINK = re.compile(r"(?<=\]\()(?!\w+:|/|#)(?P<path>[^)#\s]+)")
_CODE = re.compile(r"^(?P<fence>`{3,}).*?^(?P=fence)`*$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
_AS_THEY_ARE = {".md", ".svg", ".png"}
_LANGUAGES = {".go": "go", ".py": "python", ".toml": "toml", ".yml": "yaml", ".yaml": "yaml", ".json": "json"}


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Take in what pages link to, and what those link to."""
    root = Path(config.docs_dir).parent
    pages = [_repository_path(file.src_uri) for file in files.documentation_pages()]
    while pages:
        page = pages.pop()
        for path in _linked(page, (root / page).read_text(), root):
            uri = str(_uri(path))
            if not _on_site(path) and files.get_file_from_path(uri) is None:
                files.append(_taken(config, uri, root / path))
                if path.suffix == ".md":
                    pages.append(path)
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links lead to where their files are on the site."""
    root = Path(config.docs_dir).parent
    here = _repository_path(page.file.src_uri)

    def led(link: re.Match[str]) -> str:
        path = _target(here, link["path"], root)
        return link["path"] if path is None else os.path.relpath(_uri(path), PurePosixPath(page.file.src_uri).parent)

    text, at = "", 0
    for code in _CODE.finditer(markdown):
        text += _LINK.sub(led, markdown[at : code.start()]) + code[0]
        at = code.end()
    return text + _LINK.sub(led, markdown[at:])


def _linked(page: PurePosixPath, markdown: str, root: Path) -> list[PurePosixPath]:
    links = (_target(page, link["path"], root) for link in _LINK.finditer(_CODE.sub("", markdown)))
    return [path for path in links if path is not None]


def _target(page: PurePosixPath, link: str, root: Path) -> PurePosixPath | None:
    """The file that a link leads to, from the repository's root; None if there is none."""
    path = PurePosixPath(os.path.normpath(page.parent / link))
    if (root / path).is_dir():
        path /= "README.md"
    return path if path.parts[0] != ".." and (root / path).is_file() else None


def _uri(path: PurePosixPath) -> PurePosixPath:
    """Where a file of the repository is among the site's sources."""
    if _on_site(path):
        return path.relative_to("docs")
    return _TAKEN / (path if path.suffix in _AS_THEY_ARE else path.with_name(f"{path.name}.md"))


def _on_site(path: PurePosixPath) -> bool:
    """Whether MkDocs itself takes the file in: not the code below docs/ (mkdocs.yml, exclude_docs)."""
    return path.parts[0] == "docs" and path.suffix in _AS_THEY_ARE


def _repository_path(src_uri: str) -> PurePosixPath:
    """The file of a page that has links: of docs/, or a Markdown file that was taken."""
    path = PurePosixPath(src_uri)
    return path.relative_to(_TAKEN) if path.is_relative_to(_TAKEN) else "docs" / path


def _taken(config: MkDocsConfig, uri: str, file: Path) -> File:
    if file.suffix in _AS_THEY_ARE:
        return File.generated(config, uri, abs_src_path=str(file))
    name = file.relative_to(Path(config.docs_dir).parent)
    code = f"# {name}\n\n````{_LANGUAGES.get(file.suffix, 'text')}\n{file.read_text()}\n````\n"
    return File.generated(config, uri, content=code)
