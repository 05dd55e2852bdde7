"""`loras`: facts about LoRA files."""

from pathlib import Path

import pytest

from mlx_zimage import read_lora
from tests.cli.conftest import Run
from tests.lora.handmade import kohya, pair, tensors
from tests.lora.stored import write

MODULE = "diffusion_model.layers.0.attention.to_q"
ABOUT = {
    "software": '{"name": "ai-toolkit", "version": "0.7"}',
    "ss_base_model_version": "zimage",
    "modelspec.trigger_phrase": "ohwx\x1b[2J",
}


@pytest.fixture
def tiny(checkpoint) -> str:  # type: ignore[no-untyped-def]
    return str(checkpoint("tiny"))


def test_one_file(run: Run, tiny: str) -> None:
    skipped = {}
    for number in range(8):
        skipped |= pair(f"lora_te_text_model_layers_{number}")
    content = kohya(MODULE, 1) | tensors("layers.0.ffn_norm1", {"w_norm": (48,)}) | skipped
    write(Path("style.safetensors"), content, ABOUT)
    done = run("loras", "style.safetensors", "--model", tiny)
    assert (done.status, done.err) == (0, "")
    facts = dict(line.split("  ", 1) for line in done.out.splitlines()[:-7])
    assert {name: text.strip() for name, text in facts.items() if name != "sha256"} == {
        "file": "style.safetensors",
        "family": "ai-toolkit (ai-toolkit 0.7)",
        "changes": "LoRA and norm, rank 2, alpha 1, scale 0.5",
        "targets": "attention 1 of 16, norms 1 of 25",
        "strength": "1 is as trained; files name no range",
        "trigger words": r"'ohwx\x1b[2J'",
        "base model": "zimage",
        "size": "0.0 MB F32",
    }
    last = done.out.splitlines()[-7:]
    assert last[0].split() == [
        "without",
        "effect",
        "lora_te_text_model_layers_0:",
        *["not", "in", "this", "model"],
    ]
    assert last[-1].endswith("  and 2 more")
    (event,) = run("loras", "style.safetensors", "--model", tiny, "--json").events
    info = read_lora("style.safetensors", model=tiny)
    assert event == {"event": "lora", **info.to_dict()} | {
        k: [*v] for k, v in info.to_dict().items() if isinstance(v, tuple)
    }


def test_a_folder(run: Run) -> None:
    """One line each, against the published model, of which no file is needed."""
    folder = Path("loras")
    (folder / "deep").mkdir(parents=True)
    write(folder / "deep" / "good.safetensors", pair(MODULE, rows=3840, columns=3840), ABOUT)
    write(folder / "small.safetensors", pair(MODULE))
    (folder / "old.pt").write_bytes(b"")
    encoded = folder / "small-training" / "encoded"  # what `train` keeps beside its LoRA
    encoded.mkdir(parents=True)
    write(encoded / "picture.safetensors", pair(MODULE))
    write(encoded.with_name("state.safetensors"), pair(MODULE))
    done = run("loras", "loras")
    assert (done.status, done.err) == (0, "")
    good, old, small = done.out.splitlines()
    assert good.isprintable()
    assert good.startswith("deep/good.safetensors  ai-toolkit, LoRA, rank 2, 1 module, 0.1 MB F32")
    assert old.startswith("old.pt                 unusable: is a pickle by its name")
    assert small.startswith("small.safetensors      unusable: the module")
    events = run("loras", "loras", "--json").events
    assert [event["event"] for event in events] == ["lora", "unusable", "unusable"]
    assert events[1]["path"] == "loras/old.pt" and "pickle" in events[1]["error"]


def test_names(run: Run, tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A LoRA is named as for `generate --lora`."""
    Path("loras/deep").mkdir(parents=True)
    write(Path("loras/deep/style.safetensors"), pair(MODULE))
    for options in (("--lora-folder", "loras"), ()):
        done = run("loras", "deep/style", "--model", tiny, *options)
        assert done.status == 0 and "loras/deep/style.safetensors\n" in done.out
        monkeypatch.setenv("MLX_ZIMAGE_LORAS", "loras")
    done = run("loras", "deep/stile", "--model", tiny)
    assert done.status == 1 and done.error.endswith("did you mean deep/style?")
    done = run("loras", "owner/repo/style.safetensors")
    assert done.status == 1 and "not in the Hub's cache" in done.error


def test_what_is_no_lora(run: Run, tiny: str) -> None:
    write(Path("good.safetensors"), pair(MODULE))
    Path("empty").mkdir()
    Path("bad.pt").write_bytes(b"")
    for name, words in (
        ("none", "no such LoRA"),
        ("empty", "must hold LoRA files, and holds none"),
        ("bad.pt", "is a pickle"),
        (tiny, "no LoRA but a checkpoint"),
    ):
        done = run("loras", name, "--model", tiny)
        if name == tiny:
            assert done.status == 0 and done.out.count(words) == 3
        else:
            assert done.status == 1 and words in done.error and done.out == ""
    done = run("loras", "good.safetensors", "bad.pt", "none", "--model", tiny)
    assert done.status == 1
    assert done.error == "2 of 3 cannot be used, such as bad.pt"
    assert "targets     " in done.out and "bad.pt  unusable: is a pickle" in done.out
    assert run("loras").status == 2
