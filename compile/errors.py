"""The errors of this room that are meant for the user."""


class CompileError(Exception):
    """A user-facing error: one line that says what is wrong and what to do."""


class NoFixedPointError(CompileError):
    """The policy has no form in the precision asked for; another precision may do."""
