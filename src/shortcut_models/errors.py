"""The one exception for what a user can mend."""


class InputError(ValueError):
    """Bad input, told in one sentence: the value, what was expected, what to do.

    The command line prints it without a traceback and exits with 2.
    """
