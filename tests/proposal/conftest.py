from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """In this process: the few images of a test are looked at in less time than a worker takes to start."""
    monkeypatch.setattr("rarkit.proposal.survey.usable_workers", lambda: 0)
