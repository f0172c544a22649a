"""What the page knows of a concept's top images: how exact its maps are, and which are kept."""

import dataclasses

import numpy as np
import pytest

from bsjax.report.explorer import tops
from bsjax.report.explorer.encode import pack, pack_sparse, write_data
from bsjax.report.explorer.site import columns_payload
from bsjax.report.tables import read_comparisons
from bsjax.results.measures import TOP_IMAGES
from bsjax.stats import verdicts
from tests.report.artifacts import (
    finding,
    read_data,
    unpack,
    unpack_sparse,
    write_arm,
    write_comparison,
)

N, SLOTS, GRID, SPECIAL = 9, 12, 5, 3


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("tops")
    write_arm(workdir, "real", N)
    write_arm(workdir, "one", N)
    found = [finding(1, [4, 2], verdicts.SUPPRESSED, -2.0, -4.0, -1.0)]
    write_comparison(workdir, "one", [verdicts.SUPPRESSED] * N, findings=found)
    (comparison,) = read_comparisons(workdir, ["one"])
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 4, (N, SLOTS)).astype(np.int32)
    rows[3, 7:] = -1
    maps = rng.random((N, SLOTS, GRID, GRID)) * (rng.random((N, SLOTS, GRID, GRID)) < 0.3)
    maps[0, 0] = 0
    maps[1, 1, 0, 0], maps[1, 1, 0, 1] = 100, 0.01  # hardly fires beside it
    special = rng.random((N, SLOTS, SPECIAL))
    arm = dataclasses.replace(
        comparison.real,
        top_rows=rows,
        parts={TOP_IMAGES: {"maps": maps.astype(np.float16), "special": special}},
    )
    return comparison._replace(real=arm)


@pytest.mark.parametrize("size", [4, 128])
def test_a_map_is_told_to_within_half_a_level_and_where_it_fires_exactly(
    comparison, size, tmp_path
):
    arm = comparison.real
    found, special = [], []
    for chunk, payload in tops.map_payloads(arm, size):
        write_data(tmp_path, str(chunk), payload | {"much": "x" * 5000})  # deflated
        read = read_data(tmp_path / f"{chunk}.js")
        assert read["n_levels"] == tops.LEVELS == 31 and read["grid"] == [GRID, GRID]
        found.append(unpack_sparse(read["maps"], GRID * GRID))
        special.append(unpack(read["special"]))
    levels = np.concatenate(found).reshape(N, SLOTS, GRID * GRID)
    codes = np.asarray(arm.maps, np.float64).reshape(levels.shape)
    codes[arm.top_rows < 0] = 0  # there is no image
    others = np.where((arm.top_rows >= 0)[..., None], arm.special, 0)
    peak = np.maximum(codes.max(axis=2), others.max(axis=2))[..., None]
    shares = codes / np.where(peak > 0, peak, 1)
    np.testing.assert_array_equal(levels > 0, codes > 0)
    is_weak = (codes > 0) & (shares < 0.5 / 31)
    assert is_weak[1, 1, 1] and (levels[is_weak] == 1).all()
    assert np.abs(levels / 31 - shares)[~is_weak].max() <= 0.5 / 31 + 1e-6
    told = np.concatenate(special) / 255
    np.testing.assert_allclose(told, others / np.where(peak > 0, peak, 1), atol=1 / 255 + 1e-6)


@pytest.mark.parametrize("values", [1, 255, 256, 70_000])
def test_a_table_of_zeros_and_a_few_numbers(values):
    rng = np.random.default_rng(1)
    table = rng.integers(1, values + 1, (40, 300)) * (rng.random((40, 300)) < 0.05)
    table[[0, 7, 39]] = 0
    table[5, 299] = values
    np.testing.assert_array_equal(unpack_sparse(pack_sparse(table), 300), table)
    empty = pack_sparse(np.zeros((3, 4), np.int64))
    np.testing.assert_array_equal(unpack_sparse(empty, 4), np.zeros((3, 4)))


def test_a_huge_report_keeps_the_images_that_are_shown(comparison, monkeypatch):
    arm = comparison.real
    monkeypatch.setattr(tops, "MOST_MAPS", N * SLOTS * 2)
    assert tops.kept(arm, 0, [comparison]) is arm
    monkeypatch.setattr(tops, "MOST_MAPS", N * SLOTS * 2 - 1)
    rows = tops.kept(arm, 0, [comparison]).top_rows
    np.testing.assert_array_equal(rows[:, :6], arm.top_rows[:, :6])
    np.testing.assert_array_equal(rows[4], arm.top_rows[4])  # a finding's images
    assert (np.delete(rows, 4, axis=0)[:, 6:] == -1).all()
    ((_, payload),) = tops.map_payloads(tops.kept(arm, 0, [comparison]), 128)
    counts = unpack(payload["maps"]["counts"]).reshape(N, SLOTS)
    assert counts[4, 6:].any() and not np.delete(counts, 4, axis=0)[:, 6:].any()


@pytest.mark.parametrize("dtype", ["float32", "int32", "uint16", "uint8"])
@pytest.mark.parametrize("n_values", [3, 5000])
def test_arrays_come_back_bit_for_bit(tmp_path, dtype, n_values):
    values = np.random.default_rng(0).integers(0, n_values, (60, 50)).astype(dtype)
    if dtype == "float32":
        values = values * np.float32(np.pi)
        values[0, :3] = np.nan, np.inf, -np.inf
    payload = {"within": {"it": pack(values, dtype)}, "text": 3000 * "ü", "n": [1, 2]}
    write_data(tmp_path, "a", payload)
    assert ",true);" in (tmp_path / "a.js").read_text()
    read = read_data(tmp_path / "a.js")
    np.testing.assert_array_equal(unpack(read["within"]["it"]), values)
    assert (read["text"], read["n"]) == (3000 * "ü", [1, 2])


def test_a_column_that_is_anothers_twin_is_told_once(comparison):
    columns = comparison.columns
    other = {name: np.asarray(values) for name, values in columns.items()}
    other |= {"delta": 1 - other["delta"], "fires_generated": other["fires_generated"] + 1}
    first, second = columns_payload(columns, 0, columns), columns_payload(other, 1, columns)
    assert first["delta_relative"] == {"set": 0, "column": "delta"}
    assert second["fires_real"] == {"set": 0, "column": "fires_real"}
    sets = (first, second)
    for payload, given in ((first, columns), (second, other)):
        for name, packed in payload.items():
            if not name.startswith("verdict"):
                twin = sets[packed["set"]][packed["column"]] if "column" in packed else packed
                twin = sets[twin["set"]][twin["column"]] if "column" in twin else twin
                np.testing.assert_array_equal(unpack(twin), given[name].astype(np.float32))
