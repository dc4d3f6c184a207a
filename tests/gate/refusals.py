"""How every reader must refuse: one clear sentence that names the file, and nothing else."""

import pytest

from lrfr.errors import UserError


def refusal(function, *arguments, **named):
    """The message of the UserError that a call must end in."""
    with pytest.raises(UserError) as caught:
        function(*arguments, **named)
    text = str(caught.value)
    assert text.endswith(".") and text.isprintable(), text
    return text
