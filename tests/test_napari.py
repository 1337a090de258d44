# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of the plugin for napari: its manifest, and the layers it makes.
"""

import inspect
import tomllib
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from helpers import blobs
from numpy.testing import assert_allclose, assert_array_equal
from photutils.utils.exceptions import NoDetectionsWarning

import astrodino_seg
from astrodino_seg import DinoSegmenter
from astrodino_seg.image import write_image
from astrodino_seg.napari import demo, get_reader, segment, write

ROOT = Path(astrodino_seg.__file__).parents[1]


def layer_of(data, options, kind):
    """What napari makes of it, or the same without napari."""
    try:
        from napari.layers import Layer
    except ImportError:
        assert kind in ('image', 'labels')
        return SimpleNamespace(data=data, **{
            'rgb': False, 'metadata': {}, 'features': {}, **options})
    return Layer.create(data, options, kind)


@pytest.fixture(scope='module')
def image():
    return blobs(slice(6, 102), slice(8, 104))


def test_manifest():
    """What it names is there, and pyproject.toml names the manifest."""
    npe2 = pytest.importorskip('npe2')
    with (ROOT / 'pyproject.toml').open('rb') as stream:
        entry, = tomllib.load(stream)['project']['entry-points'][
            'napari.manifest'].values()
    package, name = entry.split(':')
    folder, = find_spec(package).submodule_search_locations
    manifest = npe2.PluginManifest.from_file(Path(folder) / name)
    manifest.validate_imports()
    assert manifest.name == 'astrodino_seg'
    assert {one.id for one in manifest.contributions.commands} == {
        f'astrodino_seg.{name}' for name in ('read', 'demo', 'segment',
                                             'write')}
    ours = inspect.signature(segment).parameters
    for name in ('merge', 'n_pixels'):
        assert ours[name].default == inspect.signature(
            DinoSegmenter).parameters[name].default


def test_image_to_labels_to_file(image, tmp_path):
    """All the way: a file, its layer, labels, a file of these, labels."""
    path = str(tmp_path / 'field.fits')
    write_image(path, image)
    (picture, options, kind), = get_reader(path)(path)
    assert (kind, picture.shape) == ('image', (*image.shape, 3))
    layer = layer_of(picture, options, kind)
    labels = layer_of(*segment(layer))
    result = DinoSegmenter().segment(path)
    assert_array_equal(labels.data, result.segmentation_image.data)
    table = labels.features
    assert_array_equal(table['index'], result.table['label'])
    assert list(table['class']) == result.table['class'].tolist()
    assert_allclose(table['sky_centroid.ra'],
                    result.table['sky_centroid'].ra.deg)
    # painted on, and saved with the WCS
    painted = np.array(labels.data)
    painted[:5, :5] = 99
    out = str(tmp_path / 'painted_segm.fits')
    assert write(out, painted, {'metadata': labels.metadata}) == [out]
    (again, _, kind), = get_reader(out)(out)
    assert kind == 'labels'
    assert_array_equal(again, painted)
    assert_allclose(WCS(fits.getheader(out)).wcs.crval, image.wcs.wcs.crval)
    # without an image, and over what is there
    write(out, painted[:9], {})
    assert_array_equal(get_reader(out)(out)[0][0], painted[:9])


def test_layers_of_others(image, tmp_path):
    """Layers of one plane, a cube and a picture; bands in files; no object."""
    for data, rgb in ((image.cube[1], False), (image.cube, False),
                      (np.moveaxis(image.cube[:3], 0, -1), True)):
        layer = SimpleNamespace(name='x', data=data, rgb=rgb, metadata={})
        labels, options, kind = segment(layer, merge=0, n_pixels=8)
        assert (labels.shape, kind) == (image.shape, 'labels')
        assert labels.max() == len(options['features']['index']) > 3
    paths = [str(tmp_path / f'{band}.fits') for band in 'gr']
    for path, plane in zip(paths, image.cube):
        fits.writeto(path, plane)
    assert get_reader(paths)(paths)[0][1]['metadata']['image'].bands == (
        'g', 'r')
    layer.data = np.random.default_rng(1).normal(size=(64, 64, 3))
    with pytest.warns(NoDetectionsWarning):
        labels, _, _ = segment(layer, n_pixels=1000)
    assert (labels.shape, labels.max()) == ((64, 64), 0)
    assert demo()[0][1]['metadata']['image'].bands == tuple('griz')
