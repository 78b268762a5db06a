"""The documentation: every relative link leads to a file, and every anchor to a heading."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/README.md"), *ROOT.glob("charts/*/README.md")]
)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    text = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    text = FENCE.sub("", page.read_text())
    return {anchor(found) for found in re.findall(r"^#{1,6} (.+)$", text, re.MULTILINE)}


def broken_links(page: Path) -> Iterator[str]:
    for link in LINK.findall(FENCE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, fragment = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (fragment and target.suffix == ".md" and fragment not in anchors(target)):
            yield link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    assert list(broken_links(page)) == []


def test_a_broken_link_and_a_missing_heading_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One heading\n[a](gone.md) [b](#one-heading) [c](#none) [d](https://example.org/x)\n")

    assert list(broken_links(page)) == ["gone.md", "#none"]


def test_every_page_is_in_the_table_of_contents() -> None:
    contents = (ROOT / "docs" / "README.md").read_text()
    pages = {page.name for page in ROOT.glob("docs/*.md")} - {"README.md"}

    assert {name for name in pages if f"({name})" not in contents} == set()
    navigation = (ROOT / "mkdocs.yml").read_text()
    assert {name for name in pages if f" {name}\n" not in navigation} == set()


def test_every_alert_of_the_chart_has_a_row_with_its_cause_and_its_fix() -> None:
    rule = ROOT / "charts" / "diffugen-operator" / "templates" / "monitoring" / "prometheusrule.yaml"
    alerts = re.findall(r"- alert: (\w+)\n\s+expr: (?:>-\n)?.*?severity: (\w+)", rule.read_text(), re.DOTALL)
    table = (ROOT / "docs" / "operations.md").read_text().partition("\n## Alerts\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \((\w+)\) \| [^|]", table, re.MULTILINE)

    assert alerts
    assert rows == alerts
    assert {row.count(" | ") for row in table.splitlines() if row.startswith("| `")} == {3}
