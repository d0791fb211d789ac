import numpy as np
import pytest
from scipy import ndimage

from brainnrds._checks import InputError
from brainnrds.group import mesh_neighbours, tfce, volume_neighbours


def chain(n):
    """Triangles of which every vertex touches the next two."""
    return np.stack([np.arange(n - 2) + i for i in range(3)], axis=1)


def slow_tfce(values, dense, step, extent_power=0.5, height_power=2.0):
    """One voxel and one height after the other; values above 0."""
    enhanced = np.zeros(len(values))
    for voxel in np.flatnonzero(values > 0):
        height = step / 2
        while height < values[voxel]:
            cluster, front = {voxel}, [voxel]
            while front:
                for other in np.flatnonzero(dense[front.pop()]):
                    if values[other] > height and other not in cluster:
                        cluster.add(other)
                        front.append(other)
            enhanced[voxel] += len(cluster) ** extent_power * height**height_power * step
            height += step
    return enhanced


@pytest.mark.parametrize(("extent_power", "height_power"), [(0.5, 2.0), (1.0, 2.0), (0.6, 1.0)])
def test_a_plateau_has_the_integral_of_its_height(extent_power, height_power):
    values = np.zeros((1, 30))
    values[0, 5:15] = 3.0
    neighbours = mesh_neighbours(chain(30), n_vertices=[30])
    powers = {"extent_power": extent_power, "height_power": height_power}
    enhanced = tfce(values, neighbours, step=0.01, **powers)
    expected = 10**extent_power * 3 ** (height_power + 1) / (height_power + 1)
    np.testing.assert_allclose(enhanced[0, 5:15], expected, rtol=1e-4)
    assert not enhanced[0, :5].any() and not enhanced[0, 15:].any()


def test_it_equals_a_slow_implementation():
    rng = np.random.default_rng(0)
    maps = rng.standard_normal((3, 40)) * [[1], [2], [5]]
    neighbours = mesh_neighbours(chain(20), chain(20), n_vertices=(20, 20))
    dense = neighbours.toarray()
    enhanced = tfce(maps, neighbours, step=0.1)
    expected = [slow_tfce(x, dense, 0.1) - slow_tfce(-x, dense, 0.1) for x in maps]
    np.testing.assert_allclose(enhanced, expected, rtol=1e-9)
    # alone or together, and without what is below 0
    for x, e in zip(maps, enhanced, strict=True):
        np.testing.assert_array_equal(tfce(x[None], neighbours, step=0.1)[0], e)
    np.testing.assert_array_equal(
        tfce(maps, neighbours, step=0.1, two_sided=False), np.maximum(enhanced, 0)
    )


def test_it_equals_labelled_volumes():
    rng = np.random.default_rng(0)
    mask = np.ones((6, 7, 8), dtype=bool)
    mask[2:4, 3] = False
    image = ndimage.gaussian_filter(rng.standard_normal(mask.shape), 0.7) * 5 * mask
    expected = np.zeros(mask.shape)
    for height in np.arange(0.05, image.max(), 0.1):
        labels, _ = ndimage.label(image > height)
        extent = np.bincount(labels.ravel())[labels]
        expected += np.where(labels > 0, np.sqrt(extent) * height**2 * 0.1, 0)
    enhanced = tfce(image[mask][None], volume_neighbours(mask), two_sided=False)
    np.testing.assert_allclose(enhanced[0], expected[mask], rtol=1e-9)


@pytest.mark.parametrize(
    ("maps", "options", "reason"),
    [
        (np.zeros(4), {}, "must go together"),
        (np.zeros((1, 5)), {}, r"must go together; got \(1, 5\) and \(4, 4\)"),
        (np.full((1, 4), np.nan), {}, "finite"),
        (np.zeros((1, 4)), {"step": 0}, "above 0; got 0"),
    ],
)
def test_what_cannot_be_enhanced_is_refused(maps, options, reason):
    with pytest.raises(InputError, match=reason):
        tfce(maps, mesh_neighbours(chain(4), n_vertices=[4]), **options)
