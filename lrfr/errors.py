"""One exception for everything a user can mend."""


class UserError(Exception):
    """Bad input: the message names the file or key, what is wrong, what to do. Alone on stderr, exit code 2."""
