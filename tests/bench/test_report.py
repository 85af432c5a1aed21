"""Tables and charts end up between their markers, and nowhere else."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.bench.report import Bar, Report, ReportTable, bar_chart, write_docs

_PAGE = "By hand.\n\n<!-- begin compare -->\nold\n<!-- end compare -->\n\nAlso by hand.\n"
_TABLE = ReportTable("Speed", [{"": "worker", "conversations/s": 1234.5, "lost": 0}])


def test_replaces_the_text_between_the_markers(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text(_PAGE)
    write_docs(Report("compare", [_TABLE], ok=True, charts={"Speed": [Bar("worker", 1234.5, True)]}), tmp_path)
    text = page.read_text()
    assert text.startswith("By hand.\n\n<!-- begin compare -->\n")
    assert text.endswith("\n<!-- end compare -->\n\nAlso by hand.\n")
    assert "| worker | 1,234 | 0 |" in text
    assert "old" not in text
    assert (tmp_path / "bench" / "compare-speed.svg").exists()


def test_refuses_a_page_without_markers(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text("By hand.\n")
    with pytest.raises(ValueError, match="no markers"):
        write_docs(Report("compare", [_TABLE], ok=True), tmp_path)


def test_a_chart_is_well_formed() -> None:
    chart = ElementTree.fromstring(bar_chart("A <title>", [Bar("a & b", 2, True), Bar("c", 1, False)]))  # noqa: S314
    widths = [int(bar.attrib["width"]) for bar in chart.iter("{http://www.w3.org/2000/svg}rect")]
    assert widths[0] == pytest.approx(2 * widths[1], abs=1)
