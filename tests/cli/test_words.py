"""Messages of the library in the command line's words."""

import pytest

from mlx_zimage.cli.words import in_options


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("width must be a multiple of 16, not 17", "--width must be a multiple of 16, not 17"),
        ("quantize must be one of 3, 4, not 7", "--q must be one of 3, 4, not 7"),
        (
            "negative_prompt has no effect without guidance; leave it out",
            "--negative-prompt has no effect without guidance; leave it out",
        ),
        (
            "a request needs either a prompt or prompt_embeds, and got both",
            "a request needs either a prompt or --prompt-embeds, and got both",
        ),
        (
            "it does not fit; quantize, or load with memory='staged'",
            "it does not fit; quantize, or load with --memory staged",
        ),
        ('load it with dtype="bfloat16"', "load it with --dtype bfloat16"),
        (
            "a.png exists already; name another file, or pass overwrite=True",
            "a.png exists already; name another file, or pass --overwrite",
        ),
        ("learning_rate must be a number", "--learning-rate must be a number"),
        (
            "resume=True goes on and overwrite=True begins anew",
            "--resume goes on and --overwrite begins anew",
        ),
        (
            "quantize must be left out where mixed='3.5' chooses",
            "--q must be left out where --mixed 3.5 chooses",
        ),
        ("make room, or pass keep_copy=False", "make room, or pass --no-cache"),
        # What is quoted, or part of a path, stays as it is.
        ("noise must be mlx, not 'cfg_truncation'", "--noise must be mlx, not 'cfg_truncation'"),
        (
            "no such checkpoint: 'memory=low' or 'x'; give a folder",
            "no such checkpoint: 'memory=low' or 'x'; give a folder",
        ),
        ("text_encoder/config.json is missing", "text_encoder/config.json is missing"),
        ("my_negative_prompt.txt is missing", "my_negative_prompt.txt is missing"),
        ("the prompt is long", "the prompt is long"),
        ("the device's memory and the model's width", "the device's memory and the model's width"),
        ("", ""),
    ],
)
def test_fields_become_options(message: str, expected: str) -> None:
    assert in_options(message) == expected
