"""The command line: parse, call the library, show what happens.

Exit status: 0 done, 1 an error in one line on standard error, 2 wrong usage, 130 interrupted.
"""

from .program import main

__all__ = ["main"]
