"""Pages of the site: the repository's own Markdown and pictures, in their own places, and one page a module.

Links between those stay as they are; a link to a file that is no page becomes its path.
"""

from __future__ import annotations

import re
from pathlib import Path
from posixpath import dirname, join, normpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = ("*.md", "clusters/*.md", "study/*.md", "study/results/**/*.md")
ASSETS = ("study/results/**/*.png", "clusters/figures/*.png", "study/*.png")
PACKAGES = ("mipoison", "study")
NO_API = re.compile(r"study\.(results|examples)\b|\.__main__$")


def modules() -> list[str]:
    """Dotted names of every module with a docstring page."""
    found = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            if not NO_API.search(name) and path.stat().st_size:
                found.append(name)
    return found


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is generated."""
    for pattern in PAGES + ASSETS:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    names = modules()
    for name in names:
        files.append(File.generated(config, f"api/{name}.md", content=f"# {name}\n\n::: {name}\n"))
    listing = "\n".join(f"- [{name}]({name}.md)" for name in names)
    text = f"# API\n\nEverything public, module by module.\n\n{listing}\n"
    files.append(File.generated(config, "api/index.md", content=text))
    return files


def on_page_markdown(markdown: str, page: object, config: MkDocsConfig, files: Files) -> str:
    """A link to something that is no page of the site becomes text and path."""
    source: str = page.file.src_uri  # type: ignore[attr-defined]
    known = {file.src_uri for file in files}

    def mend(match: re.Match[str]) -> str:
        text, target = match[1], match[2]
        path = target.partition("#")[0]
        if "://" in target or target.startswith(("mailto:", "#")) or not path:
            return match[0]
        name = normpath(join(dirname(source), path))
        if name in known:
            return match[0]
        page = join(name, "report.md")
        if page in known:
            return f"[{text}]({join(path, 'report.md')})"
        return text if text.strip("`") == path.strip("/") else f"{text} (`{name}`)"

    # Not in code blocks: `ATTACKS["x"](seed=1)` is no link.
    parts = re.split(r"(^(?: {4}[^\n]*\n?)+|^```.*?^```)", markdown, flags=re.M | re.S)
    link = r"(?<!!)(?<![`\w])\[([^\]\n]+)\]\(([^)\s]+)\)"
    parts[::2] = [re.sub(link, mend, part) for part in parts[::2]]
    return "".join(parts)
