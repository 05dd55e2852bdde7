"""Where the kept references are."""

from pathlib import Path

REFERENCES = Path(__file__).parent / "references"


def stored(*kinds: str) -> list[str]:
    """The float32 references of these kinds of checkpoint, one a device they were made on."""
    names = [path.stem for kind in kinds for path in REFERENCES.glob(f"{kind}-*-float32.npz")]
    assert names, f"no references of {kinds}: run python -m tests.parity.reference"
    return sorted(names)
