"""One exception for everything a user can mend."""


class UserError(Exception):
    """Bad input: the message names the file or key, what is wrong, and what to do. The CLI prints it alone and exits with 2."""
