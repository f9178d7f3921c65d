"""What every test may ask for."""

import numpy as np
import pytest


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator that draws the same numbers in every run of a test."""
    return np.random.default_rng(20130804)
