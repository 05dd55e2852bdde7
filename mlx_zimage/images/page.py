"""A contact sheet as one self-contained HTML page, with a slider between any two pictures.

The page needs no server and loads nothing: pictures, style and script are inside it, and its
content security policy forbids every address.
"""

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from ..checks import reason
from ..errors import RequestError
from .sheet import Cells, check_cells, one_line

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1a1a1a; --faint: #8a8a8a;
  --line: #ddd; --mark: #0a60d0; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #161616; --ink: #e8e8e8; --faint: #9a9a9a; --line: #3a3a3a; --mark: #6fb1ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem; background: var(--paper); color: var(--ink);
  font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.25rem; margin: 0 0 1rem; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; }
th { font-weight: normal; text-align: left; vertical-align: bottom; padding: 0 .5rem .25rem;
  max-width: 16rem; overflow-wrap: anywhere; }
tbody th { vertical-align: top; padding: .5rem .5rem 0 0; min-width: 5rem; }
td { padding: .4rem; vertical-align: top; }
td button { display: block; padding: 0; border: 0; background: none; cursor: pointer;
  position: relative; outline: 2px solid transparent; outline-offset: 2px; }
td button:focus-visible { outline-color: var(--faint); }
td button.left, td button.right { outline-color: var(--mark); }
td button::after { position: absolute; left: .25rem; top: .25rem; padding: 0 .4rem;
  border-radius: .25rem; background: var(--mark); color: var(--paper); font-size: .8rem; }
td button.left::after { content: "left"; }
td button.right::after { content: "right"; }
td button.left.right::after { content: "both"; }
td img { display: block; max-width: 256px; max-height: 256px; }
.none { width: 6rem; height: 6rem; border: 1px dashed var(--line); color: var(--faint);
  display: grid; place-items: center; font-size: .8rem; }
.controls { display: flex; flex-wrap: wrap; gap: .5rem 1.25rem; align-items: center;
  margin: 1.5rem 0 .75rem; }
select { font: inherit; max-width: 22rem; color: inherit; background: var(--paper);
  border: 1px solid var(--line); border-radius: .25rem; padding: .15rem .3rem; }
#stage { position: relative; width: min(100%, 1024px); touch-action: pan-y;
  cursor: ew-resize; user-select: none; overflow: hidden; background: var(--line); }
#stage img { position: absolute; inset: 0; width: 100%; height: 100%; object-fit: contain;
  pointer-events: none; background: var(--line); }
#first { clip-path: inset(0 calc(100% - var(--cut)) 0 0); }
#stage.difference, #stage.difference img { background: #000; }
#stage.difference #first { clip-path: none; mix-blend-mode: difference; }
#bar { position: absolute; top: 0; bottom: 0; left: var(--cut); width: 2px; margin-left: -1px;
  background: #fff; box-shadow: 0 0 3px #000; pointer-events: none; }
#stage.difference #bar { display: none; }
#cut { width: min(100%, 1024px); margin: .5rem 0 0; accent-color: var(--mark); }
details { margin-top: 1.5rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .8rem; }
"""

SCRIPT = """
const find = (id) => document.getElementById(id);
const stage = find("stage"), cut = find("cut"), sides = [find("left"), find("right")];
const shown = [find("first"), find("second")];
const buttons = [...document.querySelectorAll("td button")];
let next = 0;
function show() {
  sides.forEach((side, i) => {
    const picture = buttons[side.value].querySelector("img");
    shown[i].src = picture.src;
    shown[i].alt = picture.alt;
    buttons.forEach((b, n) => b.classList.toggle(side.id, n === Number(side.value)));
  });
  const sizes = sides.map((s) => buttons[s.value].querySelector("img"));
  const large = sizes.reduce((a, b) => (b.naturalWidth > a.naturalWidth ? b : a));
  stage.style.aspectRatio = large.naturalWidth + " / " + large.naturalHeight;
  stage.style.maxWidth = Math.max(large.naturalWidth, 512) + "px";
  cut.style.maxWidth = stage.style.maxWidth;
}
function move() { stage.style.setProperty("--cut", cut.value + "%"); }
function drag(event) {
  const box = stage.getBoundingClientRect();
  cut.value = Math.min(Math.max((100 * (event.clientX - box.left)) / box.width, 0), 100);
  move();
}
buttons.forEach((button, number) => button.addEventListener("click", () => {
  sides[next].value = number;
  next = 1 - next;
  show();
}));
sides.forEach((side) => side.addEventListener("change", show));
cut.addEventListener("input", move);
stage.addEventListener("pointerdown", (e) => { stage.setPointerCapture(e.pointerId); drag(e); });
stage.addEventListener("pointermove", (e) => { if (e.buttons) drag(e); });
find("difference").addEventListener("change", (e) => {
  stage.classList.toggle("difference", e.target.checked);
  cut.disabled = e.target.checked;
});
move();
addEventListener("load", show);
"""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; \
style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
<div class="scroll"><table>{table}</table></div>
{comparison}
<details><summary>Data</summary><pre>{data}</pre></details>
</body>
</html>
"""

COMPARISON = """<div class="controls">
<label>Left <select id="left">{left}</select></label>
<label>Right <select id="right">{right}</select></label>
<label><input type="checkbox" id="difference"> Difference</label>
</div>
<div id="stage"><img id="second" alt=""><img id="first" alt=""><div id="bar"></div></div>
<input type="range" id="cut" min="0" max="100" step="0.1" value="50"
 aria-label="Share of the left picture">
<script>{script}</script>"""


def sheet_page(
    cells: Cells,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    title: str = "",
    data: Mapping[str, Any] | None = None,
) -> str:
    """Return an HTML page of all cells at full size. `data` is shown on it as JSON."""
    check_cells(cells, row_labels, column_labels)
    try:
        text = json.dumps(dict(data or {}), indent=2, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise RequestError(f"data must be an object for JSON: {reason(error)}") from error
    names = _names(cells, row_labels, column_labels)
    comparison = ""
    if names:
        left, right = _options(names, 0), _options(names, min(1, len(names) - 1))
        comparison = COMPARISON.format(left=left, right=right, script=SCRIPT)
    return PAGE.format(
        title=_escaped(title or "Contact sheet"),
        style=STYLE,
        table=_table(cells, row_labels, column_labels, names),
        comparison=comparison,
        data=html.escape(text.encode("utf-8", "replace").decode("utf-8")),
    )


def _escaped(text: object) -> str:
    return html.escape(one_line(text))


def _names(cells: Cells, rows: Sequence[str], columns: Sequence[str]) -> list[str]:
    """Return the names of all pictures that are there, row by row."""
    names = []
    for r, row in enumerate(cells):
        for c, picture in enumerate(row):
            if picture is not None:
                labels = [*rows[r : r + 1], *columns[c : c + 1]]
                names.append(", ".join(filter(None, labels)) or f"row {r + 1}, column {c + 1}")
    return names


def _options(names: Sequence[str], chosen: int) -> str:
    return "".join(
        f'<option value="{n}"{" selected" if n == chosen else ""}>{_escaped(name)}</option>'
        for n, name in enumerate(names)
    )


def _table(cells: Cells, rows: Sequence[str], columns: Sequence[str], names: Sequence[str]) -> str:
    name = iter(names)
    lines = []
    if columns:
        corner = "<td></td>" if rows else ""
        heads = "".join(f'<th scope="col">{_escaped(label)}</th>' for label in columns)
        lines.append(f"<thead><tr>{corner}{heads}</tr></thead>")
    lines.append("<tbody>")
    for number, row in enumerate(cells):
        head = f'<th scope="row">{_escaped(rows[number])}</th>' if rows else ""
        places = "".join(_cell(cell, next(name) if cell else "") for cell in row)
        lines.append(f"<tr>{head}{places}</tr>")
    return "\n".join([*lines, "</tbody>"])


def _cell(picture: Image.Image | None, name: str) -> str:
    if picture is None:
        return '<td><div class="none">none yet</div></td>'
    width, height = picture.size
    size = f'width="{width}" height="{height}" style="width:auto;height:auto"'
    image = f'<img {size} src="{_data_url(picture)}" alt="{_escaped(name)}">'
    return f'<td><button type="button" title="{_escaped(name)}">{image}</button></td>'


def _data_url(picture: Image.Image) -> str:
    file = io.BytesIO()
    shown = picture if picture.mode in ("RGB", "RGBA", "L") else picture.convert("RGBA")
    shown.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
