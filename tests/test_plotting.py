# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for pictures.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image as Picture

import astrodino_seg
from astrodino_seg import plotting
from astrodino_seg.errors import AstroDinoUserWarning
from astrodino_seg.image import as_image
from astrodino_seg.plotting import (
    class_rgb,
    outline_rgb,
    plot_attention,
    plot_classes,
    plot_segmentations,
    rgb_image,
    save_figure,
)

SAMPLE = Path(astrodino_seg.__file__).parent / 'data' / 'demo_griz.fits.fz'


def scene(n_bands=3, shape=(60, 80), seed=1):
    """A blue, a red and a grey star on noise."""
    y, x = np.mgrid[:shape[0], :shape[1]]
    cube = np.random.default_rng(seed).normal(size=(n_bands, *shape))
    colours = np.linspace(-1, 1, n_bands) if n_bands > 1 else np.zeros(1)
    for cx, slope in ((20, -1), (40, 0), (60, 1)):
        psf = np.exp(-((x - cx)**2 + (y - 30)**2) / 8)
        cube += 60 * (1 + slope * colours)[:, None, None] * psf
    return as_image(cube)


def labels():
    out = np.zeros((60, 80), np.int32)
    out[25:36, 15:26] = 1
    out[25:36, 26:46] = 2       # touches the first
    out[25:36, 55:66] = 7
    return out


@pytest.fixture
def rgb():
    return rgb_image(scene())


@pytest.mark.parametrize('n_bands', [1, 2, 3, 4, 5, 9])
def test_rgb_image(n_bands):
    image = scene(n_bands)
    rgb = rgb_image(image)
    assert rgb.shape == (60, 80, 3)
    assert rgb.dtype == np.uint8
    assert rgb[30, 40].min() > np.median(rgb) + 20
    if n_bands > 1:
        assert np.ptp(rgb[30, 40].astype(int)) < 10     # grey
    if n_bands == 1:
        assert (rgb == rgb[..., :1]).all()
    else:       # bands run from blue to red
        assert rgb[30, 20, 2] > rgb[30, 20, 0] + 30
        assert rgb[30, 60, 0] > rgb[30, 60, 2] + 30


def test_rgb_image_of_noise_units():
    image = scene()
    background = np.zeros_like(image.cube)
    noise = np.ones_like(image.cube)
    one = rgb_image(image, background, noise).astype(int)
    other = rgb_image(image).astype(int)
    assert np.abs(one - other).max() < 25
    # the unit does not matter
    scaled = as_image(64 * image.cube)
    assert_array_equal(rgb_image(scaled, background, 64 * noise), one)
    # a harder stretch is darker
    dark = rgb_image(image, background, noise, stretch=1000)
    assert dark.mean() < one.mean()


def test_rgb_image_of_masked_pixels():
    mask = np.zeros((3, 60, 80), bool)
    mask[:, 5:10, 5:10] = True
    mask[0, 30, :] = True
    image = as_image(scene().cube, mask=mask)
    noise = np.where(mask, np.inf, 1).astype(np.float32)
    for rgb in (rgb_image(image), rgb_image(image, 0 * noise.clip(1, 1),
                                            noise)):
        assert len(np.unique(rgb[5:10, 5:10].reshape(-1, 3), axis=0)) == 1


@pytest.mark.parametrize('data', [
    np.zeros((20, 30)), np.full((2, 20, 30), 1e30), np.ones((1, 1)),
    np.where(np.arange(600).reshape(20, 30) == 7, 1e12, 0),
    np.arange(600.0).reshape(20, 30) * 1e-30])
def test_rgb_image_of_odd_data(data):
    rgb = rgb_image(as_image(data))
    assert rgb.shape == (*data.shape[-2:], 3)
    assert rgb.dtype == np.uint8


def test_rgb_image_of_a_band_without_pixels():
    cube = scene().cube
    cube[1] = np.nan
    with pytest.warns(AstroDinoUserWarning, match='no valid pixels'):
        image = as_image(cube)
    assert rgb_image(image)[30, 20, 2] > 100


def test_outline(rgb):
    dark = rgb // 2     # nothing in it is white
    before = dark.copy()
    out = outline_rgb(dark, labels())
    assert_array_equal(dark, before)
    drawn = (out == 255).all(axis=-1)
    inner = labels() > 0
    assert not drawn[~inner].any()
    assert drawn[25, 15:26].all()
    assert not drawn[27:34, 17:24].any()
    # labels that touch are told apart
    assert drawn[25:36, 25].all()
    assert drawn[25:36, 26].all()
    assert_array_equal(out[~drawn], dark[~drawn])
    assert_array_equal(outline_rgb(rgb, np.zeros((60, 80), int)), rgb)


def test_panels(rgb):
    figure = plot_segmentations(rgb, {'one': labels(), 'none': None})
    assert [axis.get_title() for axis in figure.axes] == [
        '', 'one: 3 labels', 'none: 0 labels']
    plain, outlined, none = (axis.images[0].get_array()
                             for axis in figure.axes)
    assert_array_equal(plain, rgb)
    assert_array_equal(none, rgb)
    assert_array_equal(outlined, outline_rgb(rgb, labels()))
    for axis in figure.axes:
        assert axis.images[0].origin == 'lower'
        assert list(axis.images[0].get_extent()) == [-0.5, 79.5, -0.5, 59.5]


def test_zoom(rgb):
    # counts and coordinates are those of the part that is shown
    figure = plot_segmentations(rgb, {'one': labels()},
                                zoom=(10, 30, 20, 40))
    axis = figure.axes[1]
    assert axis.get_title() == 'one: 2 labels'
    assert list(axis.images[0].get_extent()) == [9.5, 29.5, 19.5, 39.5]
    assert axis.images[0].get_array().shape == (20, 20, 3)
    assert_array_equal(figure.axes[0].images[0].get_array(),
                       rgb[20:40, 10:30])


@pytest.mark.parametrize(('columns', 'grid'), [(None, (1, 4)), (2, (2, 2)),
                                               (3, (2, 3)), (1, (4, 1))])
def test_columns(rgb, columns, grid):
    figure = plot_segmentations(
        rgb, {'a': labels(), 'b': labels(), 'c': None}, columns=columns,
        width=2)
    assert len(figure.axes) == 4
    spec = figure.axes[0].get_subplotspec().get_gridspec()
    assert (spec.nrows, spec.ncols) == grid
    assert figure.get_figwidth() == 2 * grid[1]


def test_save_figure(rgb, tmp_path):
    figure = plot_segmentations(rgb, {'one': labels()}, width=2)
    path = tmp_path / 'one.png'
    save_figure(figure, path, dpi=50)
    with Picture.open(path) as picture:
        assert picture.size[0] == 200
    save_figure(figure, str(path), dpi=100)     # replaces it
    with Picture.open(path) as picture:
        assert picture.size[0] == 400
    save_figure(figure, tmp_path / 'one.pdf')
    assert (tmp_path / 'one.pdf').read_bytes().startswith(b'%PDF')


def test_nothing_half_written(rgb, tmp_path, monkeypatch):
    figure = plot_segmentations(rgb, {}, width=2)
    path = tmp_path / 'one.png'
    path.write_text('old')

    def fail(name, **kwargs):
        Path(name).write_text('half')
        raise OSError('disk full')

    monkeypatch.setattr(figure, 'savefig', fail)
    with pytest.raises(OSError, match='disk full'):
        save_figure(figure, path)
    assert path.read_text() == 'old'
    assert list(tmp_path.iterdir()) == [path]


def test_without_matplotlib(rgb, monkeypatch):
    monkeypatch.setitem(sys.modules, 'matplotlib.figure', None)
    with pytest.raises(ImportError, match=r'matplotlib is needed .*\[plot\]'):
        plot_segmentations(rgb, {})
    with pytest.raises(ImportError, match=r'matplotlib is needed .*\[plot\]'):
        plot_attention(rgb, rgb[None, ..., 0], rgb[None, ..., 0], rgb[..., 0])


def test_backend_is_left_alone():
    # neither the module nor a figure picks a backend or opens a window
    code = ('import sys, numpy as np\n'
            'from astrodino_seg import plotting\n'
            'rgb = np.zeros((9, 9, 3), np.uint8)\n'
            'plotting.plot_segmentations(rgb, {})\n'
            'assert "matplotlib.pyplot" not in sys.modules\n')
    subprocess.run([sys.executable, '-c', code], check=True)
    assert plotting.__all__ == sorted(plotting.__all__)


def test_sample():
    image = as_image(SAMPLE)
    rgb = rgb_image(image)
    assert rgb.shape == (*image.shape, 3)
    # the sky is dark and something is bright, without being all white
    assert np.median(rgb) < 110
    assert rgb.max() > 200
    assert (rgb.min(axis=-1) > 250).mean() < 0.05


# --------------------------------------------- what a network sees

@pytest.fixture
def noise():
    return np.random.default_rng(1).integers(60, 200, (30, 40, 3), np.uint8)


def masks(n):
    out = np.zeros((n, 30, 40), bool)
    for k in range(n):
        out[k, 5:15, 3 * k:3 * k + 10] = True
    return out


def pictures(figure):
    return [axis.images[0].get_array() if axis.images else None
            for axis in figure.axes]


@pytest.mark.parametrize(('n', 'shape'), [(1, (2, 2)), (3, (2, 4)),
                                          (6, (2, 7)), (8, (4, 7))])
def test_attention(noise, n, shape):
    heads = np.random.default_rng(2).random((n, 30, 40))
    combined = masks(n)[0].astype(int)
    figure = plot_attention(noise, heads, masks(n), combined, width=1)
    shown = np.array(figure.axes).reshape(shape)
    assert_array_equal(shown[0, 0].images[0].get_array(), noise)
    for k in range(n):
        row, column = 2 * (k // 6), k % 6 + 1
        assert_array_equal(shown[row, column].images[0].get_array(), heads[k])
        assert shown[row, column].get_title() == f'head {k + 1}'
        assert shown[row, column].images[0].origin == 'lower'
        below = shown[row + 1, column].images[0].get_array()
        assert_array_equal(below[6:14, 3 * k + 1:3 * k + 9],
                           noise[6:14, 3 * k + 1:3 * k + 9])
        assert (below[~masks(n)[k]] <= noise[~masks(n)[k]] / 2).all()
    assert_array_equal(shown[1, 0].images[0].get_array()[6:14, 1:9],
                       noise[6:14, 1:9])
    assert sum(p is not None for p in pictures(figure)) == 2 + 2 * n


def test_class_rgb(noise):
    classes = np.zeros((30, 40), np.uint8)
    classes[0, :4] = 0, 1, 2, 3
    out = class_rgb(noise, classes)
    assert out.dtype == np.uint8
    assert (np.ptp(out[classes == 0].astype(int), axis=-1) == 0).all()
    star, galaxy, artifact = out[0, 1:4].argmax(axis=-1)
    assert (star, galaxy, artifact) == (2, 0, 1)
    # classes of one's own, more than there are colours
    many = class_rgb(noise, np.full((30, 40), 11), range(12))
    assert_array_equal(many, class_rgb(noise, np.full((30, 40), 3)))


def test_classes(noise):
    labels = np.zeros((30, 40), int)
    labels[10:20, 10:20], labels[25:28, 2:5] = 4, 9
    classes = np.where(labels > 0, 2, 0)
    classes[10, 10:15] = 1
    figure = plot_classes(noise, classes, labels, width=1)
    assert [axis.get_title() for axis in figure.axes] == [
        '', 'star 5%, galaxy 95%, artifact 0%', '2 labels']
    figure = plot_classes(noise, classes, labels, zoom=(8, 24, 6, 22), width=1)
    assert figure.axes[2].get_title() == '1 labels'
    plain, coloured, _ = pictures(figure)
    assert_array_equal(plain, noise[6:22, 8:24])
    assert_array_equal(coloured, class_rgb(noise, classes)[6:22, 8:24])
    # nothing there at all
    plot_classes(noise, 0 * classes, 0 * labels, width=1)
