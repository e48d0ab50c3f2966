"""Collects the pages of the site: ``pages/``, the repository's Markdown and pictures, one page per module.

Pages link to each other by paths in the repository, so that links also work where the repository is browsed.
The hook turns them into links of the site, and a link to a file that is not a page into the file's path. It
inserts the tables of the registries where a page asks for them (see reference_tables.py).
"""

from __future__ import annotations

import re
from pathlib import Path
from posixpath import dirname, join, normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from reference_tables import MARK, with_tables  # this folder is on the path while mkdocs loads the hook

ROOT = Path(__file__).parents[1]
OWN = ".docs/pages"
"""Folder of the pages that the site shows at its root."""
PAGES = ("*.md", "clusters/*.md", "study/*.md", "study/results/**/*.md")
ASSETS = ("study/results/**/*.png", "clusters/figures/*.png", "study/*.png")
PACKAGES = ("mipoison", "study")
NO_API = re.compile(r"study\.(results|examples)\b|\.__main__$")

LESS = "---\nsearch:\n  boost: 0.01\n---\n"
"""Front matter of the modules' pages: a search finds what explains a word before the code that has it."""


def modules(package: str) -> list[str]:
    """Dotted names of a package's modules that get a page."""
    found = []
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if not NO_API.search(name) and path.stat().st_size:
            found.append(name)
    return found


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the modules' pages to the navigation, in a section for each package."""
    sections = [{package: [{n: f"api/{n}.md"} for n in modules(package)]} for package in PACKAGES]
    config.nav = [*(config.nav or []), {"API": ["api/index.md", *sections]}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the repository's pages and pictures, the modules' pages and their index."""
    for pattern in PAGES + ASSETS:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    listing = []
    for package in PACKAGES:
        listing.append(f"\n## {package}\n")
        for name in modules(package):
            files.append(File.generated(config, f"api/{name}.md", content=LESS + f"# {name}\n\n::: {name}\n"))
            listing.append(f"- [{name}]({name}.md)")
    text = "# API\n\nEverything public, module by module.\n" + "\n".join(listing) + "\n"
    files.append(File.generated(config, "api/index.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Insert the tables, and turn paths of the repository into links of the site."""
    source = page.file.src_uri
    if MARK.search(markdown):
        page.meta["hide"] = ["toc"]  # gives its width to the table
    known = {file.src_uri for file in files}
    in_repository = source if (ROOT / source).is_file() else join(OWN, source)

    def mend(match: re.Match[str]) -> str:
        picture, text, target = match[1], match[2], match[3]
        path, hash_, anchor = target.partition("#")
        if "://" in target or target.startswith(("mailto:", "#")) or not path:
            return match[0]
        name = normpath(join(dirname(in_repository), path)).removeprefix(OWN + "/")
        report = join(name, "report.md")
        place = name if name in known else report if report in known else None
        if place:
            return f"{picture}[{text}]({relpath(place, dirname(source) or '.')}{hash_}{anchor})"
        return text if text.strip("`") == path.strip("/") else f"{text} (`{name}`)"

    # Skip code blocks: `ATTACKS["x"](seed=1)` is not a link.
    parts = re.split(r"(^(?: {4}[^\n]*\n?)+|^```.*?^```)", with_tables(markdown), flags=re.M | re.S)
    link = r"(!?)(?<![`\w])\[([^\[\]]+)\]\(([^)\s]+)\)"
    parts[::2] = [re.sub(link, mend, part) for part in parts[::2]]
    return "".join(parts)
