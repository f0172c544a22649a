"""Places of the concepts where there is no dictionary to map."""

import numpy as np

from bsjax.report.layout import place_by_amount


def test_fires_and_energy_by_their_logarithms_in_units_of_their_spread():
    fires, energy = np.array([1, 10, 100, 0]), np.array([8.0, 2.0, 0.5, 0.0])
    places = place_by_amount(fires, energy)
    # Logarithms -1, 0, 1 (times log 10) and 1, 0, -1 (times log 4): spread sqrt(2/3) of each.
    step = np.sqrt(1.5)
    np.testing.assert_allclose(
        places, [[-step, step], [0, 0], [step, -step], [-step, -step]], atol=1e-6
    )


def test_nothing_was_seen():
    assert np.array_equal(place_by_amount(np.zeros(3), np.zeros(3)), np.zeros((3, 2)))
