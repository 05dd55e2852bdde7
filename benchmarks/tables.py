"""Results as tables, and docs/benchmarks.md with its plots from all that lie in benchmarks/results.

python -m benchmarks.tables
"""

import json
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

from .plot import plot

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
PLOTS = PAGE.parent / "benchmarks"
HEAD = """| case | contender | seconds | least to most | GFLOP/s | against ours | peak | RSS |
|---|---|---|---|---|---|---|---|"""
INTRO = """# Benchmarks

Every figure here is in a file of `benchmarks/results`, with its machine, versions, command and
every sample; `python -m benchmarks.tables` makes this page of them. Weights are random, in the real
model's shapes, unless a section names a model. Files so far: {devices}.

To send yours in: `mlx-zimage bench --output NAME.json` (with `--q 4` on a small machine; `--layers
2` for a quick try), and a pull request that puts it there. `python -m benchmarks --help` tells how
a stage is raced against diffusers and mflux, `python -m benchmarks.profile` shows where a step
spends its time, and `python -m benchmarks.cuda OUT` does all that needs a CUDA card.

Seconds are medians. "peak" is what the library counts of its own arrays, weights included, "RSS"
the whole process's, which includes making the weights. A step in a race is one forward as each has
it: ours has made the caption's refiner and the modulations once for the run. GFLOP/s are the least
operations that the stage can cost, over its seconds.
"""


def lines(rows: list[dict[str, Any]]) -> list[str]:
    """Of one race: one for each contender."""
    ours = [median(row["seconds"]) for row in rows if row["contender"] == "ours" and _ran(row)]
    return [_line(row, ours[0] if ours else None) for row in rows]


def page(folder: Path) -> str:
    reports = [json.loads(file.read_text("utf-8")) for file in _files(folder)]
    drawn = plots(folder)
    count = Counter(_device(report["machine"]) for report in reports)
    devices = ", ".join(f"{number} from {name}" for name, number in sorted(count.items()))
    sections = [INTRO.format(devices=devices or "none")]
    for file, report in zip(_files(folder), reports, strict=True):
        kind = _race if "results" in report else _peaks if "peaks" in report else _bench
        sections.append(kind(report))
        if (name := f"{file.stem}.svg") in drawn:
            sections.append(f"![Seconds and memory]({PLOTS.name}/{name})\n")
    return "\n".join(sections)


def plots(folder: Path) -> dict[str, str]:
    """By file name: of each race over several sizes or kinds of weights."""
    found = {}
    for file in _files(folder):
        rows = json.loads(file.read_text("utf-8")).get("results", [])
        if any(len({row[over] for row in rows}) > 1 for over in ("side", "dtype", "quantize")):
            found[f"{file.stem}.svg"] = plot(rows)
    return found


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.json"))


def _device(machine: dict[str, Any]) -> str:
    if machine["device"] == "cpu":
        return "a CPU"
    return "a Mac" if machine["os"].startswith("Darwin") else "a CUDA card"


def _ran(row: dict[str, Any]) -> bool:
    return "failed" not in row


def _line(row: dict[str, Any], ours: float | None) -> str:
    if not _ran(row):
        return f"| {_title(row)} | {row['contender']} | {row['failed']} | | | | | |"
    seconds, flops = row["seconds"], row.get("flops")  # the first files do not say
    cells = [
        _title(row),
        row["contender"],
        f"{median(seconds):.3f}",
        f"{min(seconds):.3f} to {max(seconds):.3f}",
        "" if flops is None else f"{flops / median(seconds) / 1e9:.0f}",
        "" if ours is None else f"{median(seconds) / ours:.2f}",
        "" if row["peak"] is None else f"{row['peak'] / 1e9:.2f} GB",
        f"{row['peak_rss'] / 1e9:.2f} GB",
    ]
    return f"| {' | '.join(cells)} |"


def _title(row: dict[str, Any]) -> str:
    bits = "" if row["quantize"] is None else f", q{row['quantize']} weights"
    several = "" if row["batch"] == 1 else f", {row['batch']} pictures"
    size = f"{row['tokens']} tokens" if row["stage"] == "text" else f"{row['side']}²"
    return f"{row['stage']} {size}, {row['dtype']}{bits}{several}"


def _head(report: dict[str, Any]) -> str:
    machine = report["machine"]
    chip = machine["chip"] if machine["device"] == "cpu" else machine["device_name"]
    note = f"\n{report['note']}\n" if "note" in report else ""
    return (
        f"## {chip or machine['chip']}, {machine['cores']} cores, {machine['memory_gb']} GB\n\n"
        f"{machine['os']}, MLX {machine['mlx']} on the {machine['device']}, mlx-zimage "
        f"{machine['mlx_zimage']}: `{' '.join(report['command'])}`\n{note}"
    )


def _race(report: dict[str, Any]) -> str:
    rows = report["results"]
    layers = rows[0]["layers"]
    made = [_head(report), f"{layers} layers.\n" if layers else "All layers.\n", HEAD]
    for title in dict.fromkeys(map(_title, rows)):
        made += lines([row for row in rows if _title(row) == title])
    versions = {n: v for row in rows for n, v in row.get("versions", {}).items()}
    said = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    return "\n".join([*made, "", f"Versions: {said}.", ""])


def _bench(report: dict[str, Any]) -> str:
    quantized = report["quantize"]
    weights = "" if quantized is None else f" quantized to {quantized},"
    rate = report["gemm_flops"]
    made = [
        _head(report),
        f"{report['model']},{weights} {report['dtype']}, memory {report['memory']}; a matrix "
        f"product runs at {rate / 1e9:.0f} GFLOP/s.\n",
        "| picture | stage | seconds | least to most | peak |",
        "|---|---|---|---|---|",
    ]
    for picture in report["pictures"]:
        title = f"{picture['width']}x{picture['height']}"
        title += "" if picture["batch"] == 1 else f", {picture['batch']} at once"
        for stage in picture["stages"]:
            seconds = stage["seconds"]
            spread = f"{min(seconds):.2f} to {max(seconds):.2f}" if len(seconds) > 1 else ""
            peak = f"{stage['peak'] / 1e9:.2f} GB"
            made.append(
                f"| {title} | {stage['name']} | {median(seconds):.2f} | {spread} | {peak} |"
            )
        share = picture["step_flops"] / rate / _step(picture)
        rss = f"{picture['peak_rss'] / 1e9:.2f} GB"
        made.append(f"| {title} | share of that rate in a step | {share:.0%} | | RSS {rss} |")
    return "\n".join([*made, ""])


def _peaks(report: dict[str, Any]) -> str:
    picture, quantized = report["peaks"], report["quantize"]
    weights = "" if quantized is None else f" quantized to {quantized},"
    made = [
        _head(report),
        f"Random weights,{weights} {report['dtype']}, memory {report['memory']}. They are held as "
        "in a whole run; of the noise refiner's blocks and of the joint stream's "
        f"{report['blocks']} each was run, in one step.\n",
        "| picture | stage | peak |",
        "|---|---|---|",
    ]
    title = f"{picture['width']}x{picture['height']}"
    for stage in picture["stages"]:
        made.append(f"| {title} | {stage['name']} | {stage['peak'] / 1e9:.2f} GB |")
    made.append(f"| {title} | the process's RSS | {picture['peak_rss'] / 1e9:.2f} GB |")
    return "\n".join([*made, ""])


def _step(picture: dict[str, Any]) -> float:
    seconds: list[float] = next(s for s in picture["stages"] if s["name"] == "step")["seconds"]
    return median(seconds)


if __name__ == "__main__":
    PAGE.write_text(page(RESULTS), "utf-8")
    PLOTS.mkdir(exist_ok=True)
    for name, picture in plots(RESULTS).items():
        (PLOTS / name).write_text(picture, "utf-8")
