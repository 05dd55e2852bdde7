"""Files broken at random: each is read, or refused in one line, and nothing else happens."""

import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_zimage import LoraError
from mlx_zimage.checkpoint.checkpoint import Checkpoint
from mlx_zimage.lora.adapter import Adapter
from mlx_zimage.lora.targets import Targets, targets

from . import writers
from .writers import FAMILIES

VALUES: tuple[Any, ...] = (None, 0, -1, 1.5, "x", [], {}, [1, 2], 1 << 70, True, float("nan"))
VALUES += ("", "\0", "A" * 100_000, [[]], {"a": 1})
NUMBERS = ("r", "lora_alpha")
PATTERNS = ("rank_pattern", "alpha_pattern")
TEXTS = ("ss_tag_frequency", "software", "modelspec.trigger_phrase", "ss_num_train_images")
STRANGE = ("x\ny\x1b[2J", "9" * 5000, "[" * 5000, "{", '{"a": [1]}')
LONGEST = 1500  # characters of a message


@pytest.fixture(scope="module")
def places(checkpoint: Callable[[str], Path]) -> Targets:
    return targets(Checkpoint.open(checkpoint("tiny")))


def _config(rng: random.Random) -> dict[str, Any]:
    """Return a PEFT config with wrong values here and there."""
    config = {name: rng.choice([4, *VALUES]) for name in NUMBERS}
    config |= {name: rng.choice([{}, {"to_q": rng.choice(VALUES)}, *VALUES]) for name in PATTERNS}
    config["peft_type"] = rng.choice(["LORA", *VALUES])
    return config | {name: rng.choice(VALUES) for name in ("use_rslora", "init_lora_weights")}


def _metadata(rng: random.Random) -> Any:
    texts: dict[str, Any] = {name: rng.choice(STRANGE) for name in TEXTS}
    config = {f"transformer.{name}": value for name, value in _config(rng).items()}
    texts["lora_adapter_metadata"] = rng.choice([json.dumps(config), *STRANGE])
    return rng.choice([texts, texts, texts, *VALUES])


def _break_entry(rng: random.Random, header: dict[str, Any]) -> None:
    """Break what a header says of one tensor, or its name."""
    key, other = rng.sample([key for key in header if key != "__metadata__"], 2)
    shape = header[key]["shape"]
    way = rng.randrange(5)
    if way == 0:
        header[key][rng.choice(["dtype", "shape", "data_offsets"])] = rng.choice(VALUES)
    elif way == 1:
        header[key] = rng.choice(VALUES)
    elif way == 2:
        letters = list(key)
        for _ in range(rng.randrange(1, 4)):
            letters[rng.randrange(len(letters))] = rng.choice("._:\n\0é/0aZ")
        header["".join(letters)] = header.pop(key)
    elif way == 3:
        shapes = [shape[::-1], [*shape, 1], [1, *shape], shape[:-1], [int(np.prod(shape))], [0]]
        header[key]["shape"] = rng.choice(shapes)
    else:
        header[key], header[other] = header[other], header[key]


def _broken(data: bytes, rng: random.Random) -> bytes:
    size = struct.unpack("<Q", data[:8])[0]
    header, numbers = json.loads(data[8 : 8 + size]), data[8 + size :]
    way = rng.randrange(5)
    if way == 0:
        return data[: rng.randrange(len(data))]
    if way == 1:
        changed = bytearray(data)
        for _ in range(rng.randrange(1, 200)):
            within = len(data) if rng.random() < 0.5 else 8 + size
            changed[rng.randrange(within)] = rng.randrange(256)
        return bytes(changed)
    if way == 2:
        header["__metadata__"] = _metadata(rng)
    else:
        _break_entry(rng, header)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + numbers


def _check(seed: int, places: Targets, tmp_path: Path) -> bool:
    """Open a broken file; return whether it was read all the same."""
    rng = random.Random(seed)
    shapes = {
        f"{path}.weight": target.shape for path, target in places.modules["transformer"].items()
    }
    kind = rng.choice(["F32", "F16", "BF16", "F8_E4M3"])
    families = [family for family in FAMILIES if family != "lycoris, norms and biases"]
    path = writers.sample(rng.choice(families), shapes, kind, seed).write(tmp_path / str(seed))
    file = path
    if path.is_dir():
        file = path / "adapter_model.safetensors"
        config = rng.choice([_config(rng), *VALUES])
        (path / "adapter_config.json").write_text(json.dumps(config))
    file.write_bytes(_broken(file.read_bytes(), rng))
    try:
        Adapter.open(path, places)
    except LoraError as error:
        message = str(error)
        assert message.isprintable() and len(message) < LONGEST, f"seed {seed}"
        return False
    except Exception as error:
        raise AssertionError(f"seed {seed}") from error
    return True


def test_broken_files(places: Targets, tmp_path: Path) -> None:
    assert 0 < sum(_check(seed, places, tmp_path) for seed in range(40)) < 20


@pytest.mark.slow
def test_many_broken_files(places: Targets, tmp_path: Path) -> None:
    for seed in range(40, 1000):
        _check(seed, places, tmp_path)
