"""`mlx-zimage train`."""

from pathlib import Path

from mlx_zimage.cli import train as module
from tests.cli.conftest import Run
from tests.training.conftest import write_pictures

FEW = ["--steps", "2", "--rank", "2", "--resolution", "32", "--target", "to_q"]
FEW += ["--sample-every", "0"]


def test_a_run_is_estimated_begun_and_resumed(run: Run, here: Path, small: str) -> None:
    write_pictures(here / "photos")
    model = ["train", "photos", "a.safetensors", "--model", small]
    done = run(*model, *FEW, "--estimate")
    assert done.status == 0 and [*here.iterdir()] == [here / "photos"]
    assert done.err.startswith("3 pictures (2 of 32x32, 1 of 48x16); 7 layers, 2,688 numbers")
    done = run(*model, *FEW, "--json")
    assert done.status == 0
    kinds = [event["event"] for event in done.events]
    assert kinds[0] == "trainingstarted" and kinds[-3:] == ["trainingstep"] * 2 + ["trained"]
    assert done.events[-2]["saved"][0] == "a.safetensors" and (here / "a.safetensors").is_file()
    done = run(*model, *FEW)
    assert done.status == 1 and done.error.endswith("or begin anew (--overwrite)")
    done = run(*model, *FEW, "--resume")
    assert (done.status, done.out) == (0, "a.safetensors\n") and "all 2 steps are done" in done.err


def test_wrong_usage(run: Run, here: Path, small: str) -> None:
    model = ["train", "photos", "a.safetensors", "--model", small]
    assert run(*model, "--rank", "0").status == 2
    done = run(*model)
    assert done.status == 1 and "photos, which is not one" in done.error
    write_pictures(here / "photos")
    done = run("train", "photos", "a.png", "--model", small)
    assert done.status == 1 and "must end in .safetensors" in done.error


def test_ctrl_c_says_how_to_go_on(run: Run, here: Path, small: str, monkeypatch) -> None:
    write_pictures(here / "photos")
    begin = module.training

    def interrupted(*arguments, **options):
        events = begin(*arguments, **options)
        for event in events:
            yield event
            if type(event).__name__ == "TrainingStep":
                events.close()
                raise KeyboardInterrupt

    monkeypatch.setattr(module, "training", interrupted)
    done = run("train", "photos", "a.safetensors", "--model", small, *FEW)
    assert done.status == 130 and (here / "a.safetensors").is_file()
    assert "stopped after step 1, which is saved; --resume goes on from there" in done.err
