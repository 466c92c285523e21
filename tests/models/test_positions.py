import jax
import numpy as np
import pytest

from vidjax.models.layers import positions


def test_sincos_is_interleaved_and_one_dimensional():
    table = positions.sincos_1d(1568, 768)
    # Figures of MCG-NJU/VideoMAE's get_sinusoid_encoding_table(1568, 768), row 1.
    np.testing.assert_allclose(table[1, :4], [0.84147098, 0.54030231, 0.82843076, 0.56009149], 1e-7)
    np.testing.assert_allclose(table[1, -2:], [1.02427522e-4, 0.999999995], 1e-7)
    assert table.dtype == np.float32


def test_sincos_is_computed_in_float64():
    position, channel = 1567, np.arange(768)
    angle = position / 10000.0 ** (2 * (channel // 2) / 768)
    exact = np.where(channel % 2, np.cos(angle), np.sin(angle))
    table = positions.sincos_1d(1568, 768)[position]
    assert np.abs(table - exact).max() < 1e-7
    in_float32 = np.sin(angle.astype(np.float32)[::2])
    assert np.abs(in_float32 - exact[::2]).max() > 1e-6  # what the test would catch


# torch.nn.functional.interpolate of [1, 4, -2, 8, 3], align_corners=False, float64.
CUBIC_8 = [0.721496582, 2.773925781, 3.798034668, -1.202575684, 0.510681152, 7.692687988]
CUBIC_8 += [5.956542969, 2.535827637]


@pytest.mark.parametrize(
    ("size", "kernel", "expected"),
    [
        (8, "cubic", CUBIC_8),
        (3, "cubic", [2.277777778, -2.0, 5.12962963]),
        (8, "linear", [1.0, 2.3125, 3.625, -0.125, 1.125, 7.375, 5.1875, 3.0]),
    ],
)
def test_resampling_is_torch_interpolate(size, kernel, expected):
    matrix = positions.resample_matrix(5, size, kernel)
    np.testing.assert_allclose(matrix @ [1.0, 4, -2, 8, 3], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kernel", ["linear", "cubic"])
def test_resampling_to_the_same_size_is_exactly_the_identity(kernel):
    np.testing.assert_array_equal(positions.resample_matrix(14, 14, kernel), np.eye(14))


def test_resample_grid_matches_videomae_v2():
    # interpolate(bicubic) in space, then interpolate(linear) in time, in torch.
    expected = [
        [-0.0794891, 1.1799335, 1.0000343],
        [0.21868947, -0.0818803, 0.9978632],
        [-1.1562574, -0.24825379, 0.98513293],
    ]
    table = positions.sincos_1d(18, 8)
    found = positions.resample_grid(table, (2, 3, 3), (3, 4, 4))
    np.testing.assert_allclose(found[[0, 17, 47]][:, [0, 1, 5]], expected, rtol=0, atol=1e-6)
    assert positions.resample_grid(table, (2, 3, 3), (2, 3, 3)) is table


@pytest.mark.parametrize(("old", "new"), [(5, 3), (5, 7), (5, 8), (4, 2), (4, 9), (16, 16)])
def test_linear_antialias_is_jax_image_resize(old, new):
    table = np.random.default_rng(0).normal(size=(old, 6)).astype(np.float32)
    expected = jax.image.resize(table, (new, 6), "bilinear")
    found = positions.resample_matrix(old, new, "linear_antialias") @ table
    np.testing.assert_allclose(found, expected, atol=1e-6)
    if new < old:  # without antialias it is another table
        other = positions.resample_matrix(old, new, "linear") @ table
        assert np.abs(other - expected).max() > 0.05


def test_sinusoids_of_the_original_and_of_hugging_face():
    table = positions.sinusoid(64, 768, 1.0)
    np.testing.assert_array_equal(table[0], [0.0] * 384 + [1.0] * 384)  # not interleaved
    i = np.arange(384)
    np.testing.assert_allclose(table[63, :384], np.sin(63 * 1e4 ** (-i / 383)), atol=1e-6)
    other = positions.sinusoid(64, 768, 1 - 2 / 768)
    np.testing.assert_allclose(other[63, 384:], np.cos(63 * 1e4 ** (-i / 384)), atol=1e-6)
    assert 0.05 < np.abs(table - other).max() < 0.07
