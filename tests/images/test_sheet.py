"""Contact sheets: every picture in its place, labels of any kind, and a page that loads nothing."""

import base64
import html
import io
import re

import numpy as np
import pytest
from PIL import Image

from mlx_zimage import RequestError, contact_sheet, sheet_page
from mlx_zimage.images import sheet
from mlx_zimage.images.sheet import LINES, text_width, wrapped

CHINESE = "一只狐狸在雪地里奔跑的照片，非常清晰"
LABELS = ["steps 8", CHINESE * 9, "", "a\x00b\n\tc", "\ud800 lone", "🦊 emoji", "x" * 5000]


def _picture(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.RandomState(seed).randint(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def _place(large: Image.Image, small: Image.Image) -> tuple[int, int]:
    """Return the one place (x, y) at which a picture lies on a sheet."""
    a, b = np.asarray(large), np.asarray(small)
    h, w = b.shape[:2]
    corner = (a[: a.shape[0] - h + 1, : a.shape[1] - w + 1] == b[0, 0]).all(axis=2)
    places = [
        (int(x), int(y))
        for y, x in zip(*np.nonzero(corner), strict=True)
        if np.array_equal(a[y : y + h, x : x + w], b)
    ]
    assert len(places) == 1
    return places[0]


def test_pictures_lie_in_rows_and_columns() -> None:
    cells = [[_picture(128, 100, 3 * r + c) for c in range(3)] for r in range(2)]
    result = contact_sheet(cells, ["a", "b"], ["1", "2", "3"], "title")
    places = [[_place(result, cell) for cell in row] for row in cells]
    for row in places:
        assert len({y for _, y in row}) == 1
        assert [x - row[0][0] for x, _ in row] == [0, 140, 280]
    assert places[1][0][1] - places[0][0][1] == 112
    assert places[1][2][0] + 128 <= result.width
    assert places[1][2][1] + 100 <= result.height


def test_sizes_may_differ_and_pictures_may_be_missing() -> None:
    cells = [[_picture(128, 40), None], [_picture(40, 128, 1), _picture(90, 90, 2)]]
    result = contact_sheet(cells)
    assert _place(result, cells[0][0])[0] == _place(result, cells[1][0])[0]  # type: ignore[arg-type]
    assert contact_sheet([[None]]).width > 0


def test_large_pictures_are_made_smaller() -> None:
    large = _picture(2000, 1000)
    assert 512 < contact_sheet([[large]]).width < 560
    assert contact_sheet([[large]], largest=None).width > 2000


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1", "LA"])
def test_any_mode(mode: str) -> None:
    picture = _picture(40, 40).convert(mode)
    assert contact_sheet([[picture]]).mode == "RGB"
    assert "data:image/png" in sheet_page([[picture]])


@pytest.mark.parametrize("label", LABELS)
def test_any_label(label: str) -> None:
    cells = [[_picture(64, 64)]]
    assert contact_sheet(cells, [label], [label], label).height < 400
    page = sheet_page(cells, [label], [label], label, {"prompt": label})
    page.encode("utf-8")


@pytest.mark.parametrize("label", LABELS)
def test_labels_are_wrapped_and_cut(label: str) -> None:
    lines = wrapped(label, 150)
    assert len(lines) <= LINES
    assert all(text_width(line) <= 150 for line in lines)
    if len(lines) < LINES:
        kept = "".join(label.split()).replace("\x00", "\N{REPLACEMENT CHARACTER}")
        assert "".join("".join(lines).split()) == kept.replace("\ud800", "?")
    else:
        assert lines[-1].endswith("...")


def test_a_font_without_chinese_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import ImageFont

    usual = ImageFont.load_default(15)
    monkeypatch.setattr(sheet, "_fonts", lambda: (usual, usual))
    contact_sheet([[_picture(64, 64)]], [CHINESE], [CHINESE], CHINESE)


def test_pillow_without_freetype(monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import ImageFont

    plain = ImageFont.load_default_imagefont()
    monkeypatch.setattr(sheet, "_fonts", lambda: (plain, plain))
    contact_sheet([[_picture(64, 64)]], [CHINESE], ["plain"], CHINESE)


@pytest.mark.parametrize(
    ("cells", "options", "message"),
    [
        ([], {}, "at least one picture"),
        ([[]], {}, "at least one picture"),
        ([[None], [None, None]], {}, "equally long, not \\[1, 2\\]"),
        ([[None]], {"row_labels": ["a", "b"]}, "row_labels must be a list of 1, or empty"),
        ([[None]], {"column_labels": "a"}, "column_labels must be a list of 1, or empty"),
    ],
)
def test_refused(cells: list, options: dict, message: str) -> None:
    for make in (contact_sheet, sheet_page):
        with pytest.raises(RequestError, match=message):
            make(cells, **options)


def test_the_page_holds_the_pictures_and_no_address() -> None:
    cells = [[_picture(64, 48), None], [_picture(64, 48, 1), _picture(32, 48, 2)]]
    labels = ["seed <1>", "seed & 2"]
    page = sheet_page(cells, labels, ["a", "b"], "<title>", {"x": "</pre><script>1</script>"})
    urls = re.findall(r'src="([^"]*)"', page)
    assert all(url.startswith("data:image/png;base64,") for url in urls)
    sizes = [Image.open(io.BytesIO(base64.b64decode(u.partition(",")[2]))).size for u in urls]
    assert sizes == [(64, 48), (64, 48), (32, 48)]
    assert "http:" not in page and "https:" not in page and "url(" not in page
    assert page.count("<script>") == page.count("</script>") == 1
    assert "default-src 'none'" in page and "prefers-color-scheme: dark" in page
    assert [html.unescape(t) for t in re.findall(r'alt="(seed[^"]*)"', page)] == [
        "seed <1>, a",
        "seed & 2, a",
        "seed & 2, b",
    ]


def test_a_page_without_pictures_yet() -> None:
    page = sheet_page([[None, None]], ["a"], ["b", "c"])
    assert "none yet" in page
    assert "<script>" not in page


def test_data_must_be_plain() -> None:
    with pytest.raises(RequestError, match="data must be an object for JSON"):
        sheet_page([[None]], data={"x": object()})
