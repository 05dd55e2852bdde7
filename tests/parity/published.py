"""The published side: diffusers and transformers, on torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import ZImageImg2ImgPipeline, ZImageInpaintPipeline, ZImagePipeline
from diffusers.utils import logging as diffusers_logging
from PIL import Image
from transformers.utils import logging as transformers_logging

from .cases import Case, PictureCase

diffusers_logging.set_verbosity_error()
diffusers_logging.disable_progress_bar()
transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()
torch.backends.cuda.matmul.allow_tf32 = False
torch.backends.cudnn.allow_tf32 = False


@dataclass(frozen=True)
class Run:
    embeds: list[np.ndarray]  # the positive captions
    steps: list[np.ndarray]  # latents after each step
    images: list[np.ndarray]  # (H, W, 3) uint8


def load(folder: Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> ZImagePipeline:
    pipe = ZImagePipeline.from_pretrained(folder, dtype=dtype, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def run(pipe: ZImagePipeline, case: Case, noise_device: str = "cpu") -> Run:
    steps: list[np.ndarray] = []

    def after_step(_: Any, __: int, ___: Any, state: dict[str, Any]) -> dict[str, Any]:
        steps.append(state["latents"].float().cpu().numpy())
        return state

    made = _pipeline(pipe, case)(
        **arguments(case, noise_device),
        callback_on_step_end=after_step,
        callback_on_step_end_tensor_inputs=["latents"],
    )
    with torch.no_grad():
        embeds, _ = pipe.encode_prompt(
            prompts(case), device=pipe._execution_device, do_classifier_free_guidance=False
        )
    return Run(
        embeds=[e.float().cpu().numpy() for e in embeds],
        steps=steps,
        images=[np.asarray(image) for image in made.images],
    )


def _pipeline(pipe: ZImagePipeline, case: Case) -> Any:
    """The published class for a case, with the same models."""
    if not isinstance(case, PictureCase):
        return pipe
    kind = ZImageImg2ImgPipeline if case.masks is None else ZImageInpaintPipeline
    other = kind(**pipe.components)
    other.set_progress_bar_config(disable=True)
    return other


def prompts(case: Case) -> list[str]:
    prompt = case.request["prompt"]
    return list(prompt) if isinstance(prompt, list) else [prompt]


def arguments(case: Case, noise_device: str) -> dict[str, Any]:
    """Our request in diffusers' words."""
    request = case.request
    seed = request["seed"]
    generators = [
        torch.Generator(noise_device).manual_seed(s)
        for s in (seed if isinstance(seed, list) else [seed])
    ]
    found: dict[str, Any] = {
        "prompt": prompts(case),  # diffusers writes the template into the list it is given
        "width": request["width"],
        "height": request["height"],
        "num_inference_steps": request["steps"],
        "guidance_scale": request["guidance"],
        "cfg_normalization": request.get("cfg_normalization", False),
        "cfg_truncation": request.get("cfg_truncation", 1.0),
        "generator": generators if isinstance(seed, list) else generators[0],
    }
    if "negative_prompt" in request:
        found["negative_prompt"] = [request["negative_prompt"]] * len(found["prompt"])
    if "schedule" in request:
        found["sigmas"] = list(request["schedule"])
    if isinstance(case, PictureCase):
        del found["width"], found["height"]  # they are the image's, rounded down
        found |= {"image": _images(case, "image"), "strength": request["strength"]}
        if case.masks is not None:
            found["mask_image"] = _images(case, "mask")
    return found


def _images(case: PictureCase, name: str) -> Any:
    """PIL images, as the published processors resize arrays and tensors otherwise."""
    pictures = case.pictures[name]
    if isinstance(pictures, list):
        return [Image.fromarray(pixels) for pixels in pictures]
    return Image.fromarray(pictures)
