"""Results as a table on the terminal, as Markdown between two markers of a page in docs/, and as a bar chart."""

import html
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec
import psutil
from rich import box
from rich.console import Console
from rich.table import Table as RichTable

DOCS = Path(__file__).parents[2] / "docs"

#: Lines in a file or a log are not cut to a terminal's width.
_PLAIN_WIDTH = 160
_WIDTH, _LABEL_WIDTH, _BAR_HEIGHT, _GAP, _TOP = 760, 250, 22, 10, 46
#: Colours follow the reader's scheme, also where the file is embedded as an image.
_STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #1f2328 } .title { font-weight: 600; font-size: 15px }
.ours { fill: #0969da } .others { fill: #8c959f }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .ours { fill: #4493f8 } .others { fill: #6e7681 } }"""


Figure = str | int | float


class ReportTable(msgspec.Struct):
    """Rows from column to figure, all with the same columns; the first one names the row."""

    title: str
    rows: Sequence[Mapping[str, Figure]]

    def lines(self) -> list[list[str]]:
        """The columns' names, then the formatted figures of each row."""
        return [list(self.rows[0]), *([_formatted(figure) for figure in row.values()] for row in self.rows)]


class Bar(NamedTuple):
    """One bar of a chart; `is_ours` sets the colour."""

    label: str
    value: float
    is_ours: bool


class Report(msgspec.Struct):
    """The result of a scenario. `name` is that of its markers in docs/performance.md; `ok` decides the exit code."""

    name: str
    tables: list[ReportTable]
    ok: bool
    charts: dict[str, list[Bar]] = {}
    #: Single runs, where the tables hold medians of them.
    runs: Sequence[object] = ()
    page: str = "performance.md"
    #: What was run, where it is not the same each time.
    scope: str = ""


def print_report(report: Report) -> None:
    console = Console()
    if not console.is_terminal:
        console.width = _PLAIN_WIDTH
    for table in report.tables:
        printed = RichTable(title=table.title, title_justify="left", box=box.SIMPLE)
        columns, *rows = table.lines()
        for number, column in enumerate(columns):
            printed.add_column(column, justify="left" if number == 0 else "right")
        for row in rows:
            printed.add_row(*row)
        console.print(printed)


def write_json(report: Report, path: Path) -> None:
    document = {"machine": machine(), "report": report}
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document)) + b"\n")


def write_docs(report: Report, docs: Path = DOCS) -> None:
    """Replaces the text between the scenario's markers in its page. Raises ValueError when they are missing."""
    page = docs / report.page
    begin, end = (f"<!-- {word} {report.name} -->" for word in ("begin", "end"))
    text = page.read_text()
    if begin not in text or end not in text:
        raise ValueError(f"{page} has no markers {begin} and {end}")
    before, after = text.split(begin)[0], text.split(end)[1]
    generated = [f"Measured {datetime.now(UTC):%Y-%m-%d} on {machine()}{report.scope and f', {report.scope}'}."]
    for title, bars in report.charts.items():
        image = f"bench/{report.name}-{_file_name(title)}.svg"
        (docs / image).parent.mkdir(exist_ok=True)
        (docs / image).write_text(bar_chart(title, bars))
        generated.append(f"![{title}]({image})")
    generated += map(markdown, report.tables)
    page.write_text(f"{before}{begin}\n" + "\n\n".join(generated) + f"\n{end}{after}")


def markdown(table: ReportTable) -> str:
    columns, *rows = table.lines()
    rules = ["---", *["---:"] * (len(columns) - 1)]
    return "\n".join([f"**{table.title}**", "", *(f"| {' | '.join(cells)} |" for cells in (columns, rules, *rows))])


def bar_chart(title: str, bars: Sequence[Bar]) -> str:
    """An SVG with a horizontal bar for each, the value written behind it."""
    most = max(bar.value for bar in bars) or 1
    scale = (_WIDTH - _LABEL_WIDTH - 80) / most
    height = _TOP + len(bars) * (_BAR_HEIGHT + _GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style>",
        f'<text class="title" x="0" y="20">{html.escape(title)}</text>',
    ]
    for number, bar in enumerate(bars):
        y, width = _TOP + number * (_BAR_HEIGHT + _GAP), max(1, round(bar.value * scale))
        kind, baseline = "ours" if bar.is_ours else "others", y + 16
        parts += [
            f'<text x="{_LABEL_WIDTH - 8}" y="{baseline}" text-anchor="end">{html.escape(bar.label)}</text>',
            f'<rect class="{kind}" x="{_LABEL_WIDTH}" y="{y}" width="{width}" height="{_BAR_HEIGHT}" rx="3"/>',
            f'<text x="{_LABEL_WIDTH + width + 8}" y="{baseline}">{bar.value:,.0f}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])


def machine() -> str:
    """The machine in a few words: figures mean little without it."""
    memory_gib = round(psutil.virtual_memory().total / 2**30)
    return f"{os.cpu_count()} cores, {memory_gib} GiB, {platform.system()}, Python {platform.python_version()}"


def _formatted(figure: Figure) -> str:
    if not isinstance(figure, float):
        return figure if isinstance(figure, str) else f"{figure:,}"
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.1f}" if figure >= 10 else f"{figure:.2f}"


def _file_name(title: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in title.lower()).split())
