"""How alike two images are, patch by patch: by hand, against plain numpy, and by simulation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bsjax.stats import copies, datapoints


def sketch(tokens):
    """Sketches of tokens [..., h, w, c], which are narrow enough to stay as they are."""
    tokens = np.asarray(tokens, np.float32)
    h, w, c = tokens.shape[-3:]
    flat = tokens.reshape(-1, h * w, c)
    made = jax.tree.map(np.asarray, copies.sketch_patches(jnp.asarray(flat), h, w))
    return copies.Sketch(*(part.reshape(*tokens.shape[:-3], *part.shape[1:]) for part in made))


def restored(made):
    values = made.values.astype(np.float64) * made.scale[..., None, None, None]
    return values + made.mean[..., None, None, :]


def plain(first, second, centre):
    """The oracle: (similarity, evidence, shift_rows, shift_columns, mirrored) of two images."""
    left, right = (restored(image) - centre for image in (first, second))
    h, w = left.shape[:2]
    found = []
    for mirrored in range(2 if w > 1 else 1):
        image = right[:, ::-1] if mirrored else right
        for dy in (-1, 0, 1) if h > 2 else (0,):
            for dx in (-1, 0, 1) if w > 2 else (0,):
                cosines = []
                for y in range(h):
                    for x in range(w):
                        if 0 <= y + dy < h and 0 <= x + dx < w:
                            a, b = left[y, x], image[y + dy, x + dx]
                            norms = np.linalg.norm(a) * np.linalg.norm(b)
                            cosines.append(a @ b / norms if norms else 0.0)
                cosine = sorted(cosines)[int(0.02 * (len(cosines) - 1))]
                penalty = 0.2 * mirrored + 0.2 * ((dy, dx) != (0, 0))
                evidence = np.arctanh(np.clip(cosine, -0.999, 0.999)) - penalty
                found.append((evidence, cosine, dy, dx, mirrored))
    best = max(found, key=lambda place: place[0])
    return best[1], best[0], *best[2:]


@pytest.mark.parametrize("grid", [(8, 8), (4, 5), (2, 3), (1, 4), (1, 1), (12, 10)])
def test_likeness_is_that_of_plain_numpy(grid):
    rng = np.random.default_rng(0)
    first = rng.normal(size=(4, *grid, 6)) + 2
    others = rng.normal(size=(4, 5, *grid, 6)) + 2
    others[:, 1] = first + 0.3 * others[:, 1]
    others[:, 2] = first[:, :, ::-1]
    others[:, 3] = np.roll(first, (1, -1), (1, 2))
    made = sketch(first), sketch(others)
    centre = np.full(6, 1.5, np.float32)
    found = copies.find_likeness(*made, centre)
    for i in range(4):
        for j in range(5):
            one = copies.Sketch(*(part[i] for part in made[0]))
            other = copies.Sketch(*(part[i, j] for part in made[1]))
            got = [float(part[i, j]) for part in found]
            np.testing.assert_allclose(got, plain(one, other, centre), atol=1e-5)


def test_likeness_by_hand():
    """Three patches in a row that show a, b, c; another image shows b, c, d: one to the left."""
    a, b, c, d = np.eye(4)
    found = copies.find_likeness(sketch([[[a, b, c]]]), sketch([[[[b, c, d]]]]), np.zeros(4))
    place = [int(part[0, 0]) for part in found[2:]]
    assert place == [0, -1, 0]
    assert float(found.similarity[0, 0]) == pytest.approx(1, abs=1e-4)
    assert float(found.evidence[0, 0]) == pytest.approx(np.arctanh(0.999) - 0.2, abs=1e-4)
    # Mirrored: c, b, a. In place the worst patch has the cosine 0.
    found = copies.find_likeness(sketch([[[a, b, c]]]), sketch([[[[c, b, a]]]]), np.zeros(4))
    assert [int(part[0, 0]) for part in found[2:]] == [0, 0, 1]
    # Of 52 patches the second worst decides, of 48 the worst.
    for w, expected in ((13, 1.0), (12, 0.0)):
        first = np.tile(a, (4, w, 1))
        second = first.copy()
        second[2, 5] = b
        found = copies.find_likeness(sketch(first[None]), sketch(second[None, None]), np.zeros(4))
        assert float(found.similarity[0, 0]) == pytest.approx(expected, abs=0.01)


def test_what_all_images_share_makes_none_alike():
    rng = np.random.default_rng(1)
    shared = 20 * rng.normal(size=8)
    first, second = (sketch(shared + rng.normal(size=(1, *n, 8, 8, 8))) for n in ((), (1,)))
    for centre, low, high in ((np.zeros(8), 0.9, 1), (shared, -1, 0.2)):
        found = copies.find_likeness(first, second, centre.astype(np.float32))
        assert low < float(found.similarity[0, 0]) < high


def test_a_sketch_is_of_one_image_and_keeps_all_but_rounding():
    rng = np.random.default_rng(2)
    tokens = jnp.asarray(rng.normal(size=(5, 16, 200)) + 3, jnp.float32)
    whole = copies.sketch_patches(tokens, 4, 4)
    assert whole.values.shape == (5, 4, 4, copies.N_DIMS) and whole.values.dtype == jnp.int8
    exact = (np.asarray(tokens) @ copies.projection(200)).reshape(5, 4, 4, -1)
    error = np.abs(restored(jax.tree.map(np.asarray, whole)) - exact)
    assert (error.max(axis=(1, 2, 3)) < 0.51 * np.asarray(whole.scale)).all()
    assert int(jnp.abs(whole.values).max()) == 127
    for i in range(5):
        for got, expected in zip(copies.sketch_patches(tokens[i : i + 1], 4, 4), whole,
                                 strict=True):  # fmt: skip
            np.testing.assert_allclose(got[0], expected[i], atol=1e-6)


def test_bytes_are_those_of_the_arrays():
    for h, w, width in ((4, 4, 200), (3, 5, 20), (20, 8, 300)):
        made = copies.sketch_patches(jnp.ones((1, h * w, width)), h, w)
        assert copies.bytes_an_image(h, w, width) == sum(part.nbytes for part in made)


def test_the_projection_is_orthonormal_and_always_the_same():
    basis = copies.projection(192)
    np.testing.assert_allclose(basis.T @ basis, np.eye(copies.N_DIMS), atol=1e-6)
    np.testing.assert_array_equal(copies.projection(40), np.eye(40))
    # Another one would make sketches that were kept before worthless: raise FORMAT with it.
    np.testing.assert_allclose(basis[0, :3], [-0.0466517, -0.0860445, 0.0958067], atol=1e-6)


def test_fine_grids_are_averaged_by_area(monkeypatch):
    monkeypatch.setattr(copies, "MAX_SIDE", 2)
    np.testing.assert_allclose(copies.pooling(3), [[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]])
    np.testing.assert_array_equal(copies.pooling(2), np.eye(2))
    np.testing.assert_array_equal(copies.pooling(1), [[1]])
    tokens = np.arange(9, dtype=np.float32).reshape(1, 9, 1)
    made = jax.tree.map(np.asarray, copies.sketch_patches(jnp.asarray(tokens), 3, 3))
    expected = [[4 / 3, 8 / 3], [16 / 3, 20 / 3]]
    np.testing.assert_allclose(restored(made)[0, :, :, 0], expected, atol=0.02)
    monkeypatch.setattr(copies, "MAX_SIDE", 16)
    made = copies.sketch_patches(jnp.ones((1, 37 * 20, 3)), 37, 20)
    assert made.values.shape == (1, 16, 16, 3)
    np.testing.assert_allclose(made.mean, 1, atol=1e-6)


def test_z_by_hand():
    """Variances 1 and 4 of three others each: the common one is 2.5, moderated by 32 to 2 dof."""
    others = np.array([[1.0, 2, 3], [-2, 0, 2]]) / 4
    unusual = copies.standardise(np.array([1.0, 1.0]), others)
    sd = np.sqrt((np.array([2, 8]) + 32 * 2.5) / 34) / 4
    np.testing.assert_allclose(unusual.z, (1 - np.array([0.5, 0])) / sd)
    np.testing.assert_allclose(unusual.null_mean, np.tanh([0.5, 0]))
    # What is not there does not count; without any other there is nothing to say.
    holes = np.concatenate([others, np.full((2, 2), np.nan)], axis=1)
    np.testing.assert_allclose(copies.standardise(np.ones(2), holes).z, unusual.z)
    alone = copies.standardise(np.ones(2), np.array([[0.5], [np.nan]]))
    assert np.isnan(alone.z).all()
    np.testing.assert_allclose(alone.null_mean, [np.tanh(0.5), np.nan])
    # Everything alike: no spread, no infinity.
    same = copies.standardise(np.full(3, 3.0), np.full((3, 4), 3.0))
    np.testing.assert_array_equal(same.z, 0)


def test_plain_images_are_bland():
    real = np.array([0.1, 4, 4, 4, 4])
    assert copies.is_bland(real, np.array([9, 9, 0.9, 1.1, 4])).tolist() == [1, 0, 1, 0, 0]
    assert copies.is_bland(np.zeros(3), np.zeros(3)).all()  # all of one colour
    assert copies.is_bland(np.zeros(0), np.zeros(0)).shape == (0,)
    tokens = np.zeros((1, 2, 2, 3))
    tokens[0, 0, 0] = [4, 0, 0]
    # Distances from (1, 0, 0): 3, 1, 1, 1.
    np.testing.assert_allclose(copies.patch_variance(sketch(tokens)), [3], rtol=0.02)


def simulate(n, agreement, rng, noise=0.35):
    """Pairs that show the same in a share of their patches, and something else in the others."""
    real = rng.normal(size=(n, 8, 8, 24))
    other = rng.normal(size=(n, 8, 8, 24))
    same = rng.random((n, 8, 8, 1)) < agreement
    return real, np.where(same, real, other) + noise * rng.normal(size=real.shape)


def evidence(real, generated, rng, n_others=16):
    n = len(real)
    centre = real.mean(axis=(0, 1, 2)).astype(np.float32)
    rows = (np.arange(n)[:, None] + 1 + rng.permuted(
        np.tile(np.arange(n - 1), (n, 1)), axis=1)[:, :n_others]) % n  # fmt: skip
    made = sketch(generated)
    pick = copies.Sketch(*(part[rows] for part in made))
    alone = copies.Sketch(*(part[:, None] for part in made))
    pair = copies.find_likeness(sketch(real), alone, centre).evidence
    return np.asarray(pair)[:, 0], np.asarray(copies.find_likeness(sketch(real), pick, centre)[1])


def test_simulated_copies_are_told_from_drawings_that_agree_in_most_places():
    rng = np.random.default_rng(3)
    pairs = [simulate(100, agreement, rng) for agreement in (1.0, 0.9)]
    real, generated = (np.concatenate(arm) for arm in zip(*pairs, strict=True))
    unusual = copies.standardise(*evidence(real, generated, rng))
    copied, drawn = unusual.z[:100], unusual.z[100:]
    assert (copied[:, None] > drawn[None]).mean() > 0.99
    assert copied.mean() - drawn.mean() > 4 * drawn.std()


def test_simulated_z_is_standard_where_pairs_are_as_any_others():
    rng = np.random.default_rng(4)
    real, generated = simulate(400, 0.0, rng)
    z = copies.standardise(*evidence(real, generated, rng)).z
    assert abs(z.mean()) < 0.15
    assert 0.9 < z.std() < 1.15
    assert 0.02 < (z > 1.645).mean() < 0.09


def test_pairs_are_ranked_by_z_and_bland_ones_come_last():
    scores = {
        "z": np.array([1.0, 9, 20, np.nan, 5]),
        "bland": np.array([0, 0, 1, 0, 0], bool),
        "patch_similarity": np.array([0.1, 0.2, 1, 0.9, 0.3]),
        "cosine": np.array([1, 0.9, 1, 1, 1]),
        "absolute_difference": np.zeros(5),
    }
    assert datapoints.rank_pairs(scores).tolist() == [1, 4, 0, 3, 2]
    del scores["z"]
    assert datapoints.rank_pairs(scores).tolist() == [0, 2, 3, 4, 1]


def test_of_several_seeds_the_most_alike_stands_for_the_real_image():
    order = np.array([3, 0, 4, 1, 2])
    assert datapoints.first_of_each(order, np.array([7, 7, 5, 5, 7])).tolist() == [3, 0]
    assert datapoints.first_of_each(order, np.arange(5)).tolist() == order.tolist()
