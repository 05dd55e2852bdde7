"""Seconds and peak memory against size or bits, as an SVG picture."""

import itertools
from statistics import median
from typing import Any
from xml.sax.saxutils import escape

WIDTH, HEIGHT, EDGE = 420, 280, 56  # of one panel, and its margin
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#ff7f0e", "#9467bd", "#8c564b")

Point = tuple[float, float]


def plot(rows: list[dict[str, Any]]) -> str:
    """One line for each contender and kind of weights, over what varies most: sizes, or bits."""
    rows = [row for row in rows if "failed" not in row]
    over = "side" if len({row["side"] for row in rows}) > 1 else "bits"
    peak = "peak_rss" if any(row["peak"] is None for row in rows) else "peak"
    memory = "peak RSS, GB" if peak == "peak_rss" else "peak, GB"
    panels = [
        _panel("seconds", over, _lines(rows, over, lambda row: median(row["seconds"]))),
        _panel(memory, over, _lines(rows, over, lambda row: row[peak] / 1e9)),
    ]
    body = "".join(
        f'<g transform="translate({i * WIDTH},0)">{panel}</g>' for i, panel in enumerate(panels)
    )
    size = f'width="{WIDTH * len(panels)}" height="{HEIGHT}"'
    font = 'font-family="sans-serif" font-size="11"'
    paper = '<rect width="100%" height="100%" fill="white"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font}>{paper}{body}</svg>\n'


def _bits(row: dict[str, Any]) -> float:
    """Of a weight: as quantized, else as its type has."""
    quantize = row["quantize"]
    if isinstance(quantize, int):
        return float(quantize)
    text = quantize or row["dtype"]
    return float("".join(c for c in text if c.isdigit()))


def _lines(rows: list[dict[str, Any]], over: str, value: Any) -> dict[str, list[Point]]:
    found: dict[str, list[Point]] = {}
    for row in rows:
        kind = f"q{row['quantize']}" if row["quantize"] is not None else row["dtype"]
        name = f"{row['contender']}, {kind}" if over == "side" else row["contender"]
        name += "" if row["batch"] == 1 else f", {row['batch']} pictures"
        x = float(row["side"]) if over == "side" else _bits(row)
        found.setdefault(name, []).append((x, value(row)))
    return {name: sorted(points) for name, points in found.items()}


def _panel(title: str, over: str, lines: dict[str, list[Point]]) -> str:
    points = list(itertools.chain.from_iterable(lines.values()))
    low, high = min(x for x, _ in points), max(x for x, _ in points)
    top = max(y for _, y in points) * 1.1 or 1.0
    span = (high - low) or 1.0

    def place(point: Point) -> str:
        x = EDGE + (point[0] - low) / span * (WIDTH - 2 * EDGE)
        return f"{x:.1f},{HEIGHT - EDGE - point[1] / top * (HEIGHT - 2 * EDGE):.1f}"

    made = [f'<text x="{EDGE}" y="24" font-weight="bold">{escape(title)} by {over}</text>']
    for x in sorted({x for x, _ in points}):
        at = place((x, 0)).split(",")[0]
        made.append(f'<text x="{at}" y="{HEIGHT - EDGE + 16}" text-anchor="middle">{x:g}</text>')
    for share in (0, 0.5, 1):
        y = place((low, top * share)).split(",")[1]
        made.append(f'<text x="{EDGE - 6}" y="{y}" text-anchor="end">{top * share:.3g}</text>')
        made.append(f'<path d="M{EDGE},{y}H{WIDTH - EDGE}" stroke="#ddd"/>')
    for number, (name, line) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        way = " ".join(place(point) for point in line)
        made.append(f'<polyline points="{way}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for point in line:
            across, down = place(point).split(",")
            made.append(f'<circle cx="{across}" cy="{down}" r="3" fill="{colour}"/>')
        label = f'x="{EDGE + 8}" y="{44 + 14 * number}" fill="{colour}"'
        made.append(f"<text {label}>{escape(name)}</text>")
    return "".join(made)
