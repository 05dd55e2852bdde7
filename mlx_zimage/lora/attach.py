"""Adapters attached to loaded modules, which stay as they are.

Notable:
- the changed module is a new tree of modules around the same arrays, so it costs no memory and no
  time, and the base is there again when the adapters are taken off;
- every change is computed from the base's product, `W + s (W' - W)`, so the order of adapters has
  no effect. They are sorted, so that it has none on rounding either;
- LoRAs of the same layer are joined to one pair of matrices;
- what depends on the layer's weights or on their type is computed when a layer first runs.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import mlx.core as mx
from mlx import nn

from ..checkpoint.streaming import Arrays, Streamed
from ..models.blocks import SCALED, headroom
from ..models.layers.slot import Slot
from .form import Base, Prepared, f32, ready
from .forms import Change, LowRank, VectorChange

Changes = Mapping[str, Mapping[str, Change | VectorChange]]
"""By component and official module path."""


class Pair(NamedTuple):
    """LoRAs joined to one: y + factor (x down^T o ratios) up^T."""

    down: mx.array
    up: mx.array
    factor: float
    ratios: mx.array | None  # where their scales differ: each one's share of the largest

    def added_to(self, y: mx.array, x: mx.array) -> mx.array:
        low = x @ self.down.T
        if self.ratios is not None:
            low = (low * self.ratios).astype(x.dtype)
        return mx.addmm(y, low, self.up.T, self.factor)


class Ready(NamedTuple):
    """The changes of a layer, ready for inputs of one type."""

    forms: list[Prepared]
    pair: Pair | None
    bias: mx.array | None


class LayerChanges:
    """All changes of one layer, each with its strength: an adapter for the layer's slot."""

    def __init__(self, changes: Sequence[tuple[Change, float]], scaled: bool = False):
        self._changes = changes
        self._scaled = scaled  # in float16 the layer's output is `headroom` times as large
        self._ready: dict[mx.Dtype, Ready] = {}

    def __call__(self, x: mx.array, layer: Slot) -> mx.array:
        prepared = self._ready.get(x.dtype)  # another thread may clear them at any time
        if prepared is None:
            prepared = self._ready[x.dtype] = self._prepared(layer, x.dtype)
        forms, pair, bias = prepared
        base = _once(lambda: layer.product(x))
        parts = [form(x, base) for form in forms]
        before = [part.before for part in parts if part.before is not None]
        y = layer.product(sum(before, x)) if before else base()
        y = sum((part.after for part in parts if part.after is not None), y)
        if pair is not None:
            y = pair.added_to(y, x)
        return y if bias is None else y + bias

    def clear(self) -> None:
        """Free what was computed for the weights that ran."""
        self._ready.clear()

    def nbytes(self, dtype: mx.Dtype) -> int:
        """Return the bytes of its arrays, and of their joined or converted copies."""
        arrays = [array for change, _ in self._changes for array in change.arrays]
        copied = [a for a in arrays if a.dtype != dtype or len(self._changes) > 1]
        return sum(a.nbytes for a in arrays) + sum(a.size * dtype.size for a in copied)

    def _prepared(self, layer: Slot, dtype: mx.Dtype) -> Ready:
        pairs, forms, bias = list[tuple[LowRank, float]](), list[Prepared](), None
        for change, strength in self._changes:
            if isinstance(change.form, LowRank):
                pairs.append((change.form, strength))
            elif change.form is not None:
                forms.append(change.form.prepare(layer, dtype, strength))
            if change.bias is not None:
                added = strength * f32(change.bias)
                bias = added if bias is None else bias + added
        if bias is not None:
            bias = ready(bias * (headroom(dtype) if self._scaled else 1), dtype)
        return Ready(forms, _joined(pairs, dtype) if pairs else None, bias)


def _joined(pairs: Sequence[tuple[LowRank, float]], dtype: mx.Dtype) -> Pair | None:
    factors = [strength * form.scale for form, strength in pairs]
    factor = max(factors, key=abs)
    if factor == 0:
        return None
    forms, ratios = [form for form, _ in pairs], None
    if len({*factors}) > 1:
        shares = [f / factor for f, form in zip(factors, forms, strict=True) for _ in form.down]
        ratios = ready(mx.array(shares), mx.float32)
    down = [form.down.astype(dtype) for form in forms]
    up = [form.up.astype(dtype) for form in forms]
    if len(pairs) == 1:
        return Pair(ready(down[0], dtype), ready(up[0], dtype), factor, ratios)
    joined = mx.concatenate(down), mx.concatenate(up, axis=1)
    return Pair(ready(joined[0], dtype), ready(joined[1], dtype), factor, ratios)


def _once(compute: Callable[[], mx.array]) -> Base:
    results: list[mx.array] = []

    def base() -> mx.array:
        if not results:
            results.append(compute())
        return results[0]

    return base


class Attached:
    """Adapters with their strengths, ready to be attached to a model's modules."""

    def __init__(self, adapters: Sequence[tuple[Changes, float]]):
        self._layers: dict[str, dict[str, LayerChanges]] = defaultdict(dict)
        self._vectors: dict[str, dict[str, list[tuple[VectorChange, float]]]] = defaultdict(dict)
        arrays: list[mx.array] = []
        for component in {name for changes, _ in adapters for name in changes}:
            by_path: dict[str, list[tuple[Any, float]]] = defaultdict(list)
            for changes, strength in adapters:
                for path, change in changes.get(component, {}).items() if strength else ():
                    by_path[path].append((change, strength))
                    arrays += change.arrays
            for path, several in by_path.items():
                if isinstance(several[0][0], VectorChange):
                    self._vectors[component][path] = several
                else:
                    scaled = component == "transformer" and path.endswith(SCALED)
                    self._layers[component][path] = LayerChanges(several, scaled)
        mx.eval(arrays)  # here, as other threads cannot use this thread's stream

    def nbytes(self, dtypes: Mapping[str, mx.Dtype]) -> int:
        """Return the bytes of all arrays, as stored and as components of these types use them."""
        total = 0
        for component, layers in self._layers.items():
            for layer in layers.values():
                total += layer.nbytes(dtypes[component])
        return total

    def changes(self, component: str) -> bool:
        """Return whether a component is changed at all."""
        return bool(self._layers.get(component) or self._vectors.get(component))

    def attach(self, component: str, module: nn.Module) -> Any:
        """Return a component's module with all changes; `module` stays as it is."""
        if not self.changes(component):
            return module
        layers, vectors = self._layers[component], self._vectors[component]
        tree = Tree(dict(layers), dict(vectors))
        changed = tree.cloned(module, "")
        assert not tree.layers and not tree.vectors, "a module that is to be changed is missing"
        return changed

    def clear(self) -> None:
        """Free what was computed for the weights that ran."""
        for layers in self._layers.values():
            for layer in layers.values():
                layer.clear()


class Tree:
    """A module's tree that is cloned, and the changes that are still to be set in it."""

    def __init__(
        self,
        layers: dict[str, LayerChanges],
        vectors: dict[str, Sequence[tuple[VectorChange, float]]],
    ):
        self.layers, self.vectors = layers, vectors

    def cloned(self, value: Any, path: str) -> Any:
        """Return a value of the tree, with new modules around the same arrays."""
        if isinstance(value, Streamed):
            return self._streamed(value, path)
        if isinstance(value, list):
            return [self.cloned(each, f"{path}.{i}") for i, each in enumerate(value)]
        if not isinstance(value, dict):
            return value
        prefix = f"{path}." if path else ""
        items = {name: self.cloned(each, f"{prefix}{name}") for name, each in value.items()}
        if not isinstance(value, nn.Module):
            return items
        if path in self.vectors:
            items["weight"] = _changed(items["weight"], self.vectors.pop(path))
        clone: nn.Module = value.__class__.__new__(value.__class__)
        vars(clone).update(vars(value) | {"_no_grad": set(value._no_grad)})
        dict.update(clone, items)
        if path in self.layers:
            assert isinstance(clone, Slot)
            clone.adapter = self.layers.pop(path)
        return clone

    def _streamed(self, streamed: Streamed, path: str) -> Streamed:
        """Return a block that stays on disk, and is changed whenever it is read."""
        names = [name for name in self.vectors if name.startswith(f"{path}.")]
        vectors = {
            f"{name.removeprefix(f'{path}.')}.weight": self.vectors.pop(name) for name in names
        }

        def changed(arrays: Arrays) -> Arrays:
            return [(k, _changed(a, vectors[k]) if k in vectors else a) for k, a in arrays]

        return streamed.with_block(self.cloned(streamed.block, path), changed)


def _changed(weight: mx.array, changes: Sequence[tuple[VectorChange, float]]) -> mx.array:
    """Return a changed vector: summed in float32, and rounded once."""
    values = base = f32(weight)
    for change, strength in changes:
        values = values + strength * change.delta(base)
    return ready(values, weight.dtype)
