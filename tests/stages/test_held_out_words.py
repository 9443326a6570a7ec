"""What the terminal says of held-out images while a model trains."""

from __future__ import annotations

import pytest

from rarkit.stages.held_out import HeldOutBits, said_of


@pytest.mark.parametrize(("bits", "overfits"), [((5.0,), False), ((5.0, 4.0), False), ((4.0, 4.1), False), ((5.0, 4.0, 4.3), True)])
def test_a_clear_rise_is_called_overfitting(bits, overfits):
    said = said_of([HeldOutBits(step=10 * number, held_out_bits=value) for number, value in enumerate(bits, 1)])
    assert said.startswith(f"{bits[-1]:.3f} bits per token of held-out images after {10 * len(bits)} steps")
    assert said.endswith("4.000 after 20: the model is overfitting") == overfits
