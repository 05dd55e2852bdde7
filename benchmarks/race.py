"""Contenders that take turns, each in a process of its own."""

import json
import subprocess
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

FILES = {"ours": "ours.py", "diffusers": "published.py", "mflux": "mflux.py"}
ROOM = Path(__file__).parent / "contenders"


def race(case: dict[str, Any], contenders: dict[str, str], runs: int) -> dict[str, dict[str, Any]]:
    """By name: every sample, peaks and versions; or why it failed. `contenders`: interpreters."""
    found: dict[str, dict[str, Any]] = {}
    with ExitStack() as stack:
        running = {}
        for name, python in contenders.items():
            command = [python, str(ROOM / FILES[name]), json.dumps(case)]
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=ROOM.parents[1],
            )
            stack.enter_context(process)
            stack.callback(process.kill)  # before it is waited for
            ready = _answer(process)
            if ready is None:
                found[name] = {"failed": f"ended with {process.wait()}"}
            else:
                running[name] = process
                found[name] = {"seconds": [], "versions": ready["versions"]}
        for number in range(runs):
            order = list(running)
            for name in reversed(order) if number % 2 else order:
                answer = _asked(running[name])
                if answer is None:  # it died on the way
                    found[name] = {"failed": f"ended with {running.pop(name).wait()}"}
                else:
                    found[name]["seconds"].append(answer["seconds"])
        for name, process in running.items():
            assert process.stdin is not None
            process.stdin.close()
            found[name] |= _answer(process) or {"failed": "said no peaks"}
    return found


def _asked(process: "subprocess.Popen[str]") -> dict[str, Any] | None:
    assert process.stdin is not None
    try:
        process.stdin.write("\n")
        process.stdin.flush()
    except BrokenPipeError:  # it died since it answered
        with suppress(BrokenPipeError):
            process.stdin.close()  # else its end would try to flush that line
        return None
    return _answer(process)


def _answer(process: "subprocess.Popen[str]") -> dict[str, Any] | None:
    """Its next line of JSON; what else a library prints is passed over."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("{"):
            return dict(json.loads(line))
    return None
