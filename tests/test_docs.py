"""What the documentation says of messages and files."""

from __future__ import annotations

import contextlib
import io
import re

import pytest
from support.paths import ROOT

DOCS = ROOT / "docs"
PACKAGES = ("catdog_edge", "exporters", "benchmarks")


def _messages() -> str:
    """The source of what ships, with string literals that follow one another joined."""
    texts = (
        file.read_text() for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))
    )
    return re.sub(r'"\s+f?"', "", "\n".join(texts))


@pytest.mark.skipif(not (ROOT / "exporters").is_dir(), reason="needs the whole source tree")
def test_troubleshooting_lists_messages_that_exist() -> None:
    page = (DOCS / "troubleshooting.md").read_text()
    titles = re.findall(r"^(`.+)$\n:   ", page, re.MULTILINE)
    assert len(titles) > 15
    messages = _messages()
    parts = [
        part.strip(" ;.:")
        for title in titles
        for quoted in re.findall(r"`([^`]+)`", title)
        for part in re.split(
            r": |\.\.\.|\S*/\S*|\S+\.onnx\b|\blib\S+|\bcuda\b|\bonnxruntime\b|\bcv2\b|\d+", quoted
        )
    ]
    parts = [part for part in parts if len(part) > 6]
    assert [part for part in parts if part not in messages] == []


def test_every_page_is_in_the_navigation() -> None:
    site = ROOT / "mkdocs.yml"
    if not site.is_file():
        pytest.skip("needs the whole source tree")
    named = set(re.findall(r": (\S+\.md)$", site.read_text(), re.MULTILINE))
    assert named == {file.name for file in DOCS.glob("*.md")}


@pytest.mark.skipif(not (ROOT / "exporters").is_dir(), reason="needs the whole source tree")
def test_files_that_are_named_exist() -> None:
    pages = [page for page in DOCS.glob("*.md") if page.name != "experiments.md"]  # older commits
    pages += [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    folders = "|".join((*PACKAGES, "tests", "examples"))
    named = {
        (page.name, path)
        for page in pages
        for path in re.findall(rf"(?<![\w./-])(?:{folders})/[\w./-]+\.\w+", page.read_text())
    }
    assert len(named) > 10
    assert [one for one in sorted(named) if not (ROOT / one[1]).exists()] == []


def test_the_first_lines_of_the_readme(monkeypatch: pytest.MonkeyPatch) -> None:
    if not (ROOT / "README.md").is_file():
        pytest.skip("needs the whole source tree")
    code, said = re.findall(
        r"```python\n(.*?  # (.*?)\n)```", (ROOT / "README.md").read_text(), re.DOTALL
    )[0]
    monkeypatch.chdir(ROOT)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {})
    assert printed.getvalue().strip() == said
