"""Train the demo's transformer and text encoder together.

    python -m tools.train_demo.train_transformer OUT [--steps 100000] [--start FOLDER]

OUT holds the trained vae/, tokenizer/ and reader.safetensors; with `--start` the weights of a whole
checkpoint in the official layout come instead of the reader's.

At a point x between noise and a picture, the transformer answers the way to the picture. The points
are mostly those to which its own answers have led, as they will when it draws: what it drew wrong
it learns to put right. A part of them are true mixtures of picture and noise, at the levels of
Turbo's eight steps and others. Several batches are under way at once, each some steps further
whenever its turn comes.

It ends with transformer/ and text_encoder/ in the official layout, in float32: the running mean of
the weights. `--export` writes them from the last checkpoint and trains no further.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from . import train_batches, train_state
from .architecture import TEXT_ENCODER, TRANSFORMER
from .train_batches import Batch, Batches
from .train_model import STEPS, Demo, levels, shifted
from .train_probe import probe
from .train_reader import FILE as READER
from .train_reader import muon_and_adam

FILE = "transformer-training.pt"
AT_STEPS = 0.6  # share of the true mixtures at the noise levels of the eight steps
RESTARTED = 0.3  # share of the points that go back to a true mixture
BATCHES, TURNS = 16, 8  # under way at once, and the turns that each has
MUON, ADAM = 0.006, 1e-3  # learning rates: of the blocks' matrices, of all else
WARM = 200  # steps
DECAY = 0.5  # share of the steps over which the rates fall to zero, at the end
MEAN = 0.999  # of the running mean of the weights, the share that stays
PROBE_STEPS = 1000


@dataclass
class Underway:
    """A batch, the points that it has come to, and their noise levels; 0 where it is drawn."""

    batch: Batch
    x: torch.Tensor
    sigma: torch.Tensor

    @classmethod
    def begin(cls, batch: Batch) -> "Underway":
        return cls(batch, batch.clean.clone(), torch.zeros(len(batch.ids)))

    def turn(self, demo: Demo) -> torch.Tensor:
        """Return the loss of a step from where the points are, and move them on."""
        batch, count = self.batch, len(self.sigma)
        fresh = (self.sigma == 0) | batch.dropped | (torch.rand(count) < RESTARTED)
        self.sigma = torch.where(fresh, sigmas(count), self.sigma)
        level = _wide(self.sigma, demo.device)
        noise = torch.randn(batch.clean.shape).to(demo.device)
        mixture = level * noise + (1 - level) * batch.clean
        self.x = torch.where(_wide(fresh, demo.device), mixture, self.x)
        answer = demo.answer(self.x, self.sigma.to(demo.device), batch.ids)
        away = (answer - (batch.clean - self.x) / level).square()
        losses = (away * batch.focus).mean(dim=(1, 2, 3))
        following = lower(self.sigma)
        self.x = self.x + _wide(self.sigma - following, demo.device) * answer.detach()
        self.sigma = following
        # A picture that has gone wrong counts no more than one, or late steps would see no other.
        return (losses / losses.detach().clamp(min=1)).mean()


def _wide(values: torch.Tensor, device: str) -> torch.Tensor:
    return values[:, None, None, None].to(device)


def lower(sigma: torch.Tensor) -> torch.Tensor:
    """Return for each noise level the next of the eight steps' below it."""
    below = levels()[None] < sigma[:, None] - 1e-4
    return levels()[below.float().argmax(dim=1)]


def sigmas(count: int) -> torch.Tensor:
    """Return levels for true mixtures: most are the eight steps', the others spread."""
    steps = 1 - torch.randint(STEPS, (count,)) / STEPS
    even = 1 - torch.rand(count) * 0.98
    return shifted(torch.where(torch.rand(count) < AT_STEPS, steps, even))


class Training:
    """Everything that the next step depends on."""

    def __init__(self, out: Path, device: str, batch: int, start: Path | None, compiled: bool):
        self._file, self._batch = out / FILE, batch
        self.batches = Batches(out, batch, device)
        resumed = train_state.load(self._file, self._configuration())
        reader = out / READER if start is None and resumed is None else None
        begun = start is not None and resumed is None
        self.demo = Demo.read(start, device) if begun else Demo.new(device, reader)
        if compiled:
            self.demo.compile()
        self._optimizers = muon_and_adam(self.demo.named_parameters(), MUON, ADAM)
        self.mean = {name: p.detach().clone() for name, p in self.demo.named_parameters()}
        self.step, self.seconds = 0, 0.0
        self._underway: dict[int, Underway] = {}
        if resumed is not None:
            self._take(resumed)
        self._looked = self.step

    def advance(self, steps: int) -> float:
        """Train one step of so many, and return its loss."""
        torch.manual_seed(self.step)
        rate = min((self.step + 1) / WARM, (1 - self.step / steps) / DECAY, 1.0)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * max(rate, 0.0)
        place, turn = self.step % BATCHES, self.step // BATCHES
        if place not in self._underway or (turn + place) % TURNS == 0:
            self._underway[place] = Underway.begin(self.batches[self.step])
        loss = self._underway[place].turn(self.demo)
        loss.backward()
        parameters = dict(self.demo.named_parameters())
        torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        for optimizer in self._optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        share = min(MEAN, (self.step + 1) / (self.step + 10))
        torch._foreach_lerp_(
            list(self.mean.values()), [p.detach() for p in parameters.values()], 1 - share
        )
        self.step += 1
        return loss.item()

    def save(self) -> None:
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "weights": {name: p.detach() for name, p in self.demo.named_parameters()},
            "mean": self.mean,
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "underway": {
                place: {**vars(u), "batch": vars(u.batch)} for place, u in self._underway.items()
            },
        }
        train_state.save(self._file, state, self._configuration())

    def look(self) -> str:
        if self.step - self._looked < PROBE_STEPS:
            return ""
        self._looked = self.step
        return probe(self.demo, self.mean, self.batches)

    def _take(self, state: dict[str, Any]) -> None:
        self.step, self.seconds = state["step"], state["seconds"]
        for name, parameter in self.demo.named_parameters():
            parameter.data.copy_(state["weights"][name])
            self.mean[name].copy_(state["mean"][name])
        for optimizer, values in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(values)
        self._underway = {
            place: Underway(**{**values, "batch": Batch(**values["batch"])})
            for place, values in state["underway"].items()
        }

    def _configuration(self) -> dict[str, Any]:
        ours = {name: globals()[name] for name in ("AT_STEPS", "RESTARTED", "BATCHES", "TURNS")}
        rates = {"MUON": MUON, "ADAM": ADAM, "WARM": WARM, "DECAY": DECAY, "MEAN": MEAN}
        names = ("MAIN", "OTHERS", "MAIN_SHARE", "SHAPES_KEPT", "CHINESE", "DROPPED", "LONG")
        data = {name: getattr(train_batches, name) for name in (*names, "FOCUS", "MARGIN")}
        sizes = {"transformer": TRANSFORMER, "text encoder": TEXT_ENCODER, "batch": self._batch}
        return ours | rates | data | sizes


def train(
    out: Path,
    steps: int,
    device: str = "cpu",
    *,
    batch: int = 32,
    start: Path | None = None,
    compiled: bool = True,
) -> bool:
    """Train as `train_state.run` does, and write the parts of the checkpoint at the end."""
    training = Training(out, device, batch, start, compiled)
    if not train_state.run(training, steps, out):
        return False
    training.demo.write(out, training.mean)
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--start", type=Path, help="a checkpoint whose weights to begin with")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--eager", action="store_true", help="do not compile")
    parser.add_argument("--export", action="store_true", help="write the weights as they are now")
    options = parser.parse_args()
    if options.export:
        training = Training(options.out, options.device, options.batch, None, compiled=False)
        training.demo.write(options.out, training.mean)
        print(f"the weights after {training.step} steps are in {options.out}")
    elif not train(
        options.out,
        options.steps,
        options.device,
        batch=options.batch,
        start=options.start,
        compiled=not options.eager,
    ):
        sys.exit(train_state.STOPPED)


if __name__ == "__main__":
    main()
