"""The one error of this room that is meant for the user."""


class CompileError(Exception):
    """A user-facing error: one line that says what is wrong and what to do."""
