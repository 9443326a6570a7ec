"""Messages of several sentences."""

from __future__ import annotations

import pytest

from rarkit.errors import LONGEST, DatasetError, RarkitWarning, sentences
from rarkit.pipeline.published import with_published


@pytest.mark.parametrize(
    ("texts", "joined"),
    [
        (("a", "B"), "a. B."),
        (("a.", "B"), "a. B."),
        (("a?", "B…"), "a? B…"),
        (("an image has 1 or 3 channels", "rarkit plan lists all."), "an image has 1 or 3 channels. rarkit plan lists all."),
        ((), ""),
    ],
)
def test_each_sentence_has_an_end(texts, joined):
    assert sentences(*texts) == joined


def test_addresses_follow_a_finished_sentence():
    message = with_published(DatasetError("there is no rar_b.bin"))
    assert message.startswith("there is no rar_b.bin. Published: hf://yucornetto/RAR/rar_b.bin, which can also be given")


def test_messages_that_quote_without_an_end_are_shortened():
    """Names of tensors, arrays and classes may be of any length; the cure stands at the end."""
    for message in (str(DatasetError("a" * 10**6 + ". Cure.")), str(RarkitWarning("a" * 10**6 + ". Cure."))):
        assert (len(message), message[-8:]) == (LONGEST, "a. Cure.")
    assert len(str(DatasetError("a" * LONGEST))) == LONGEST
