"""The loss curve as a picture: each step as a dot, and a running mean as a line."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT, MARGIN = 960, 480, 56
SMOOTH = 2  # drawn this many times larger
DOT, LINE, AXIS, PAPER = "#b9cbe4", "#1f5aa6", "#444444", "white"
SPAN = 0.03  # of the run, the time over which the running mean forgets


def curve(losses: Sequence[float], total: int) -> Image.Image:
    """Draw the losses of the steps done so far, on an axis of `total` steps."""
    image = Image.new("RGB", (WIDTH * SMOOTH, HEIGHT * SMOOTH), PAPER)
    draw = ImageDraw.Draw(image)
    values = np.asarray(losses, float)
    low, high = np.percentile(values, [0, 99]) if len(values) else (0.0, 1.0)
    low, high = min(low, 0.95 * high), high * 1.05 or 1.0
    steps = np.arange(1, len(values) + 1)
    points = _places(steps, values, total, low, high)
    for x, y in points:
        draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=DOT)
    if len(values) > 1:
        means = _places(steps, running_mean(values, max(SPAN * total, 1)), total, low, high)
        draw.line(means, fill=LINE, width=2 * SMOOTH + 1)
    _axes(draw, total, low, high)
    return image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


def running_mean(values: np.ndarray, span: float) -> np.ndarray:
    """Return the mean of the values so far, the older ones weighted less, unbiased at the start."""
    keep = 1 - 1 / max(span, 1.0)
    total = weight = 0.0
    means = []
    for value in values:
        total, weight = keep * total + value, keep * weight + 1
        means.append(total / weight)
    return np.array(means)


def _places(
    steps: np.ndarray, values: np.ndarray, total: int, low: float, high: float
) -> list[tuple[float, float]]:
    """Return points of the drawing, values beyond the axis at its end."""
    across, down = WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN
    x = SMOOTH * (MARGIN + across * steps / max(total, 1))
    share = np.clip((values - low) / (high - low), 0, 1)
    y = SMOOTH * (MARGIN + down * (1 - share))
    return [*zip(x.tolist(), y.tolist(), strict=True)]


def _axes(draw: ImageDraw.ImageDraw, total: int, low: float, high: float) -> None:
    edge = SMOOTH * MARGIN
    right, bottom = SMOOTH * (WIDTH - MARGIN), SMOOTH * (HEIGHT - MARGIN)
    draw.line([(edge, edge), (edge, bottom), (right, bottom)], fill=AXIS, width=SMOOTH)
    font = ImageFont.load_default(13 * SMOOTH)
    for share in (0.0, 0.5, 1.0):
        value = low + share * (high - low)
        beside = (edge - 6 * SMOOTH, bottom - share * (bottom - edge))
        draw.text(beside, f"{value:.3g}", AXIS, font, anchor="rm")
        below = (edge + share * (right - edge), bottom + 6 * SMOOTH)
        draw.text(below, f"{round(share * total)}", AXIS, font, anchor="mt")
    draw.text((edge, edge - 8 * SMOOTH), "loss", AXIS, font, anchor="ms")
    draw.text((right, bottom + 24 * SMOOTH), "steps", AXIS, font, anchor="rt")
