"""AUTOMATIC1111's API, as Open WebUI and SillyTavern call it."""

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mlx_zimage import ZImage
from tests.lora.handmade import pair
from tests.lora.stored import write

from .conftest import SMALL, Running

PROMPT = SMALL["prompt"]
TINY = {"prompt": PROMPT, "width": 64, "height": 64, "steps": 1, "cfg_scale": 1, "seed": 3}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server that takes steps and scales, so that tests are quick, and has a LoRA."""
    from .conftest import running

    place = tmp_path_factory.mktemp("sdapi")
    (place / "loras").mkdir()
    tensors = pair("transformer.layers.0.attention.to_q", rows=192, columns=192)
    write(place / "loras" / "chalk.safetensors", tensors, {})
    settings = {"sdapi_honour": True, "lora_folder": place / "loras"}
    with running(place / "pictures", **settings) as server:
        yield server


def post(server: Running, name: str, body: Any) -> Any:
    answer = server.ask("POST", f"/sdapi/v1/{name}", body)
    assert answer.status == 200, answer.body
    return answer.json


def pictures(answer: Any) -> list[Image.Image]:
    return [Image.open(io.BytesIO(base64.b64decode(text))) for text in answer["images"]]


def encoded(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_a_picture_is_the_librarys(own: Running) -> None:
    answer = post(own, "txt2img", {**TINY, "steps": 2, "seed": 7})
    expected = ZImage.load("demo").generate(PROMPT, width=64, height=64, steps=2, seed=7).image
    assert np.array_equal(np.asarray(pictures(answer)[0]), np.asarray(expected))
    info = json.loads(answer["info"])
    assert (info["seed"], info["all_seeds"], info["steps"]) == (7, [7], 2)
    assert info["notes"] == []


def test_numbers_of_pictures(own: Running) -> None:
    answer = post(own, "txt2img", {**TINY, "batch_size": 2, "n_iter": 2})
    assert len(answer["images"]) == 4
    assert json.loads(answer["info"])["all_seeds"] == [3, 4, 5, 6]


def test_open_webui(server: Running) -> None:
    """Replays Open WebUI: it reads the options, sends them back, lists models, and draws."""
    options = server.ask("GET", "/sdapi/v1/options").json
    assert options["sd_model_checkpoint"] == "demo"
    assert post(server, "options", {**options, "sd_model_checkpoint": "demo"}) is None
    models = server.ask("GET", "/sdapi/v1/sd-models").json
    assert [(model["title"], model["model_name"]) for model in models] == [("demo", "demo")]
    body = {"prompt": PROMPT, "batch_size": 1, "width": 64, "height": 64, "steps": 50}
    answer = post(server, "txt2img", {**body, "negative_prompt": "blurry"})
    assert len(answer["images"]) == 1
    info = json.loads(answer["info"])
    assert info["steps"] == 8  # 50 would be another model's
    assert info["notes"] == [
        "steps of other models were ignored",
        "negative_prompt has no effect without guidance and was ignored",
    ]


def test_silly_tavern(server: Running) -> None:
    """Replays SillyTavern: its lists, and its picture with other models' defaults."""
    for name in ("samplers", "schedulers", "upscalers", "latent-upscale-modes", "sd-vae"):
        assert isinstance(server.ask("GET", f"/sdapi/v1/{name}").json, list), name
    samplers = server.ask("GET", "/sdapi/v1/samplers").json
    assert "Euler" in [sampler["name"] for sampler in samplers]
    body = {
        "prompt": PROMPT,
        "negative_prompt": "",
        "sampler_name": "DPM++ 2M Karras",
        "scheduler": "karras",
        "steps": 20,
        "cfg_scale": 7,
        "width": 70,
        "height": 64,
        "restore_faces": False,
        "enable_hr": False,
        "hr_upscaler": "Latent",
        "denoising_strength": 0.7,
        "clip_skip": 1,
        "override_settings": {"CLIP_stop_at_last_layers": 1},
        "override_settings_restore_afterwards": True,
        "save_images": True,
        "send_images": True,
        "do_not_save_grid": False,
    }
    answer = post(server, "txt2img", body)
    assert pictures(answer)[0].size == (64, 64)
    notes = json.loads(answer["info"])["notes"]
    assert "width 70 was rounded to 64" in notes
    assert "steps and cfg_scale of other models were ignored" in notes
    assert "sampler DPM++ 2M Karras is not known here; the default was used" in notes
    idle = server.ask("GET", "/sdapi/v1/progress").json
    assert (idle["progress"], idle["state"]["job_count"], idle["current_image"]) == (0, 0, None)


def test_samplers_and_schedules_by_their_names(own: Running) -> None:
    body = {**TINY, "steps": 4, "sampler_name": "Euler a", "scheduler": "SGM Uniform"}
    answer = post(own, "txt2img", body)
    options = {"sampler": "euler_ancestral", "schedule": "sgm_uniform", "steps": 4, "seed": 3}
    model = ZImage.load("demo")
    expected = model.generate(PROMPT, width=64, height=64, **options)  # type: ignore[arg-type]
    assert np.array_equal(np.asarray(pictures(answer)[0]), np.asarray(expected.image))


def test_a_picture_is_changed(own: Running) -> None:
    blue = Image.new("RGB", (64, 64), (34, 85, 204))
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (32, 0, 64, 64))
    body = {**TINY, "steps": 2, "init_images": [f"data:image/png;base64,{encoded(blue)}"]}
    plain = post(own, "img2img", body)
    expected = ZImage.load("demo").generate(
        PROMPT, width=64, height=64, steps=2, seed=3, image=blue, strength=0.75, fit="stretch"
    )
    assert np.array_equal(np.asarray(pictures(plain)[0]), np.asarray(expected.image))
    assert "init_images" not in plain["parameters"]
    masked = {**body, "init_images": [encoded(blue)], "mask": encoded(mask)}
    kept = np.asarray(pictures(post(own, "img2img", masked))[0])
    assert (kept[:, :24] == (34, 85, 204)).all()
    turned = {**masked, "inpainting_mask_invert": 1}
    kept = np.asarray(pictures(post(own, "img2img", turned))[0])
    assert (kept[:, 40:] == (34, 85, 204)).all()


def test_loras_in_the_prompt(own: Running) -> None:
    assert [lora["name"] for lora in own.ask("GET", "/sdapi/v1/loras").json] == ["chalk"]
    answer = post(own, "txt2img", {**TINY, "prompt": f"{PROMPT} <lora:chalk:0.5>"})
    plain = post(own, "txt2img", TINY)
    assert json.loads(answer["info"])["prompt"] == PROMPT
    assert answer["images"] != plain["images"]
    unknown = own.ask("POST", "/sdapi/v1/txt2img", {**TINY, "prompt": "x <lora:../../etc:1>"})
    assert unknown.status == 404


@pytest.mark.slow
def test_progress_moves_and_another_client_interrupts(serve: Callable[..., Any]) -> None:
    with serve(sdapi_honour=True) as own:
        answers: list[Any] = []

        def draw() -> None:
            answers.append(own.ask("POST", "/sdapi/v1/txt2img", {**TINY, "steps": 1000}))

        thread = threading.Thread(target=draw)
        thread.start()
        seen: list[Any] = []
        while not seen or seen[-1]["current_image"] is None:
            seen.append(own.ask("GET", "/sdapi/v1/progress").json)
        last = seen[-1]
        assert 0 < last["progress"] < 1
        assert last["state"]["sampling_steps"] == 1000
        assert base64.b64decode(last["current_image"]).startswith(b"\x89PNG")
        assert last["state"]["job_count"] == 1
        quiet = own.ask("GET", "/sdapi/v1/progress?skip_current_image=true").json
        assert quiet["current_image"] is None
        assert post(own, "interrupt", {}) == {}
        thread.join()
        assert (answers[0].status, answers[0].json["error"]["code"]) == (409, "cancelled")
        assert post(own, "interrupt", {}) == {}  # nothing runs


@pytest.mark.parametrize(
    ("path", "change", "param"),
    [
        ("txt2img", {"prompt": 5}, "prompt"),
        ("txt2img", {"width": "wide"}, "width"),
        ("txt2img", {"width": 0}, "width"),
        ("txt2img", {"seed": "x"}, "seed"),
        ("txt2img", {"batch_size": 1000}, "batch_size"),
        ("txt2img", {"batch_size": 50, "n_iter": 50}, "batch_size"),
        ("img2img", {}, "init_images"),
        ("img2img", {"init_images": ["x"]}, "init_images"),
        ("img2img", {"init_images": ["/etc/passwd"]}, "init_images"),
        ("img2img", {"init_images": [5]}, "init_images"),
    ],
)
def test_what_is_wrong_is_told(
    server: Running, path: str, change: dict[str, Any], param: str
) -> None:
    answer = server.ask("POST", f"/sdapi/v1/{path}", {**TINY, **change})
    assert answer.status in (400, 422)
    assert answer.json["error"]["param"] == param
    assert answer.json["detail"] == answer.json["error"]["message"]


def test_no_file_is_read(server: Running, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    Image.new("RGB", (64, 64), "red").save(secret)
    answer = server.ask("POST", "/sdapi/v1/img2img", {**TINY, "init_images": [str(secret)]})
    assert answer.status == 400
