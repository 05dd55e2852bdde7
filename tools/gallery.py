"""Draw the gallery of the demo checkpoint: docs/gallery.md and its pictures.

python -m tools.gallery
"""

from pathlib import Path
from typing import Any

from mlx_zimage import ZImage, save_png

DOCS = Path(__file__).parents[1] / "docs"
COLUMNS = 4
SEED = 7
PICTURES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("a red circle on a blue background", {}),
    ("a small red star in the top left corner on a blue background", {}),
    ("a big yellow heart on a purple background", {}),
    ("the letter R in white on a black background", {}),
    ("蓝色背景上的红色圆形", {}),
    ("白色背景左上角的小的绿色三角形", {}),
    ("橙色背景上，黑色字母Z在白色圆环的左边", {}),
    ("a green ring to the left of a red square on a white background", {}),
    ("a yellow letter M above a white digit 7 on green", {}),
    ("a huge orange cross at the bottom on a blue background", {"width": 192, "height": 96}),
    ("a black star on the right on a yellow background", {"width": 96, "height": 128}),
    ("a white triangle above a purple square on orange", {"width": 160, "height": 192}),
)


def main() -> None:
    model = ZImage.load("demo")
    pictures = DOCS / "gallery"
    pictures.mkdir(parents=True, exist_ok=True)
    for old in pictures.glob("*.png"):
        old.unlink()
    cells = []
    for number, (prompt, options) in enumerate(PICTURES, 1):
        result = model.generate(prompt, seed=SEED, **options)
        name = f"{number:02}.png"
        save_png(result.image, pictures / name, {"request": result.request.to_dict()})
        cells.append(f"![{prompt}](gallery/{name})<br>{prompt}")
    rows = [cells[i : i + COLUMNS] for i in range(0, len(cells), COLUMNS)]
    table = ["|" + " |" * COLUMNS, "|" + "---|" * COLUMNS]
    table += ["| " + " | ".join(row) + " |" for row in rows]
    text = (
        "# Gallery\n\nDrawn by the demo checkpoint that comes with the package: 8 steps, no "
        f"guidance, seed {SEED}, by `python -m tools.gallery`. Each PNG holds its own request: "
        "`mlx_zimage.read_metadata`.\n\n"
    )
    (DOCS / "gallery.md").write_text(text + "\n".join(table) + "\n", "utf-8")


if __name__ == "__main__":
    main()
