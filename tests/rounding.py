"""What 'equal to rounding' means in these tests."""

from typing import Any

import numpy as np


def assert_rounding(got: Any, expected: Any, units: float = 100, scale: float = 0.0) -> None:
    """The arrays differ by at most `units` units of rounding of the largest entry.

    The unit is that of `got`'s precision. Two orders of adding the same n terms differ by a few
    times sqrt(n) units of the largest term: 100 leaves room for sums that nearly cancel and none
    for a missing or a doubled term. `scale` is the size of the terms where they cancel altogether
    and the largest entry says nothing.
    """
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape, f"shape {got.shape} where {expected.shape} was expected"
    largest = max(float(np.abs(expected).max(initial=0.0)), scale)
    difference = float(
        np.abs(got.astype(np.float64) - expected.astype(np.float64)).max(initial=0.0)
    )
    bound = units * float(np.finfo(got.dtype).eps) * largest
    assert difference <= bound, f"largest difference {difference:.3g}, allowed {bound:.3g}"


def assert_same_gradients(got: Any, expected: Any, units: float = 100) -> None:
    """Two mappings of gradients agree to rounding, and no array of them is all zero.

    An array's own largest entry is the yardstick, or a thousandth of the largest entry of them all
    where its own sums cancel.
    """
    assert sorted(map(str, got)) == sorted(map(str, expected))
    overall = max(float(np.abs(np.asarray(array)).max()) for array in expected.values())
    for name, array in expected.items():
        assert np.abs(array).max() > 0, f"{name}: a gradient of zero tests nothing"
        try:
            assert_rounding(got[name], array, units, scale=1e-3 * overall)
        except AssertionError as error:
            raise AssertionError(f"gradient of {name}: {error}") from None


def assert_identical(got: Any, expected: Any) -> None:
    """The same shape, the same dtype and the same bits."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype
    np.testing.assert_array_equal(got, expected)
