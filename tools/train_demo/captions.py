"""Words for a scene, in English and in Chinese, in many wordings.

What a caption leaves out is at its default: a medium size, the centre, black, a white background.
"""

import random

from .scenes import Scene, Thing

PLACES_EN = {
    ("top", "left"): ("in the top left corner", "at the top left", "in the upper left corner"),
    ("top", "centre"): ("at the top", "on top", "near the top"),
    ("top", "right"): ("in the top right corner", "at the top right", "in the upper right corner"),
    ("centre", "left"): ("on the left", "on the left side", "at the left"),
    ("centre", "centre"): ("in the centre", "in the middle", "in the center", ""),
    ("centre", "right"): ("on the right", "on the right side", "at the right"),
    ("bottom", "left"): (
        "in the bottom left corner",
        "at the bottom left",
        "in the lower left corner",
    ),
    ("bottom", "centre"): ("at the bottom", "near the bottom"),
    ("bottom", "right"): (
        "in the bottom right corner",
        "at the bottom right",
        "in the lower right corner",
    ),
}
SIZES_EN = {
    "small": ("small", "little", "tiny"),
    "medium": ("medium", "medium-sized", ""),
    "large": ("large", "big", "huge"),
}
GROUNDS_EN = (
    "on {a} background",
    "on {colour}",
    "against {a} background",
    "on a plain {colour} background",
)
RELATIONS_EN = {"left of": ("to the left of", "left of"), "above": ("above", "over")}
REVERSED_EN = {"left of": ("to the right of", "right of"), "above": ("below", "under")}
BESIDE_EN = ("and", "next to", "beside")  # from left to right, as one reads
REVERSED, BESIDE = 0.4, 0.15  # shares of the pairs that name the second thing first, or no side
OPENINGS_EN = ("", "", "", "a picture of ", "an image of ", "draw ")

COLOURS_ZH = {
    "red": "红色",
    "green": "绿色",
    "blue": "蓝色",
    "yellow": "黄色",
    "white": "白色",
    "black": "黑色",
    "orange": "橙色",
    "purple": "紫色",
}
SHAPES_ZH = {
    "circle": ("圆形", "圆"),
    "square": ("正方形", "方块"),
    "triangle": ("三角形",),
    "star": ("星形", "星星", "五角星"),
    "ring": ("圆环",),
    "heart": ("心形", "爱心"),
    "cross": ("十字", "十字形"),
}
SIZES_ZH = {"small": ("小", "小的"), "medium": ("中等大小的", ""), "large": ("大", "大的")}
PLACES_ZH = {
    ("top", "left"): ("左上角",),
    ("top", "centre"): ("上方", "顶部"),
    ("top", "right"): ("右上角",),
    ("centre", "left"): ("左侧", "左边"),
    ("centre", "centre"): ("中央", "中间", ""),
    ("centre", "right"): ("右侧", "右边"),
    ("bottom", "left"): ("左下角",),
    ("bottom", "centre"): ("下方", "底部"),
    ("bottom", "right"): ("右下角",),
}
RELATIONS_ZH = {"left of": ("左边", "左侧"), "above": ("上方", "上面")}
REVERSED_ZH = {"left of": ("右边", "右侧"), "above": ("下方", "下面")}


def caption(scene: Scene, generator: random.Random, language: str = "en") -> str:
    return english(scene, generator) if language == "en" else chinese(scene, generator)


def english(scene: Scene, generator: random.Random) -> str:
    plain = _leaves_out_white(scene, generator)
    things = [_thing_en(thing, generator, plain) for thing in scene.things]
    colour = scene.background
    ground = generator.choice(GROUNDS_EN).format(colour=colour, a=_article(colour))
    if scene.relation:
        middle = _pair_en(things, scene.relation, generator)
    else:
        middle = f"{things[0]} {generator.choice(PLACES_EN[scene.place])}".rstrip()
    if plain:
        text = generator.choice(OPENINGS_EN) + middle
    elif generator.random() < 0.15:
        text = f"{_article(colour)} background with {middle}"
    else:
        text = f"{generator.choice(OPENINGS_EN)}{middle} {ground}"
    if generator.random() < 0.2:
        text = text[0].upper() + text[1:]
    return text + ("." if generator.random() < 0.1 else "")


def chinese(scene: Scene, generator: random.Random) -> str:
    plain = _leaves_out_white(scene, generator)
    things = [_thing_zh(thing, generator, plain) for thing in scene.things]
    ground = "" if plain else f"{COLOURS_ZH[scene.background]}背景"
    first = generator.random() < 0.5  # the background is named first
    if scene.relation:
        middle = _pair_zh(things, scene.relation, generator)
        return f"{ground}上，{middle}" if ground and first else _joined(middle, ground)
    place = generator.choice(PLACES_ZH[scene.place])
    if first and (ground or place):
        return f"{ground}{place or '上'}的{things[0]}"
    return _joined(f"{things[0]}在{place}" if place else things[0], ground)


def _pair_en(things: list[str], relation: str, generator: random.Random) -> str:
    first, second = things
    if relation == "left of" and generator.random() < BESIDE:
        return f"{first} {generator.choice(BESIDE_EN)} {second}"
    if generator.random() < REVERSED:
        return f"{second} {generator.choice(REVERSED_EN[relation])} {first}"
    return f"{first} {generator.choice(RELATIONS_EN[relation])} {second}"


def _pair_zh(things: list[str], relation: str, generator: random.Random) -> str:
    first, second = things
    if relation == "left of" and generator.random() < BESIDE:
        return f"{first}和{second}"
    if generator.random() < REVERSED:
        return f"{second}在{first}的{generator.choice(REVERSED_ZH[relation])}"
    return f"{first}在{second}的{generator.choice(RELATIONS_ZH[relation])}"


def _joined(middle: str, ground: str) -> str:
    return f"{middle}，{ground}" if ground else middle


def _leaves_out_white(scene: Scene, generator: random.Random) -> bool:
    return scene.background == "white" and generator.random() < 0.3


def _leaves_out_black(thing: Thing, generator: random.Random, plain: bool) -> bool:
    """Only where the background is left out as well."""
    return plain and thing.colour == "black" and generator.random() < 0.5


def _article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _thing_en(thing: Thing, generator: random.Random, plain: bool) -> str:
    size = generator.choice(SIZES_EN[thing.size])
    colour = "" if _leaves_out_black(thing, generator, plain) else thing.colour
    if not thing.is_glyph:
        return _article(_spaced(size, colour, thing.name))
    kind = "digit" if thing.name.isdigit() else "letter"
    if generator.random() < 0.5:
        return _article(_spaced(size, colour, kind, thing.name))
    return _spaced("the", size, kind, thing.name, f"in {colour}" if colour else "")


def _thing_zh(thing: Thing, generator: random.Random, plain: bool) -> str:
    size = generator.choice(SIZES_ZH[thing.size])
    colour = "" if _leaves_out_black(thing, generator, plain) else COLOURS_ZH[thing.colour]
    if not thing.is_glyph:
        return f"{size}{colour}{generator.choice(SHAPES_ZH[thing.name])}"
    kind = "数字" if thing.name.isdigit() else "字母"
    return f"{size}{colour}{kind}{thing.name}"


def _spaced(*words: str) -> str:
    return " ".join(word for word in words if word)
