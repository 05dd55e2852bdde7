"""huggingface_hub's HTTP client, which brings its proxies, tokens and errors along.

The library fills `utils` when it is first used, which type checkers do not see.
"""

from typing import Any


def client() -> Any:
    """Return its client: httpx's, by whatever name a version of the library has it."""
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

    return get_session()


def headers() -> dict[str, str]:
    """Return the headers that bear the token, if there is one."""
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    return dict(build_hf_headers())


def refuse_error(response: Any) -> None:
    """Raise the library's error where a server has answered with one."""
    from huggingface_hub.utils import hf_raise_for_status  # type: ignore[attr-defined]

    hf_raise_for_status(response)
