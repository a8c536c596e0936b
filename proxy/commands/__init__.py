"""The commands, one module each, with ``run(args)`` that returns the exit code."""

from __future__ import annotations


class Failure(Exception):
    """A command cannot do what was asked; ``str()`` is the one line that the operator sees, ``code`` the exit code.

    ``prefixed``: the line does not begin with a file's name and gets the program's.
    """

    def __init__(self, message: str, *, code: int = 1, prefixed: bool = True) -> None:
        super().__init__(message)
        self.code = code
        self.prefixed = prefixed
