"""A launchd agent that keeps a server running for the person who is logged in."""

import plistlib
from collections.abc import Sequence
from pathlib import Path

LABEL = "org.mlx-zimage.serve"
"""The agent's name; its file must be called LABEL.plist."""


def launch_agent(command: Sequence[str], log: Path) -> bytes:
    """Return the property list of an agent that runs a command.

    It starts at login and again after a crash, not after an orderly end. A background process would
    be throttled, so that it is declared as interactive.
    """
    agent = {
        "Label": LABEL,
        "ProgramArguments": list(command),
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ProcessType": "Interactive",
        "StandardOutPath": str(log),
        "StandardErrorPath": str(log),
    }
    return plistlib.dumps(agent)
