"""The one error for input that the user has to mend."""

__all__ = ["InputError"]


class InputError(ValueError):
    """A data set or file that cannot be used: the message says what, expected and got.

    The command line prints it as one line and leaves with exit code 2.
    """
