# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What the tests of simulated scenes share.
"""

import hashlib

import numpy as np

from astrodino_seg.simulate import CONDITIONS, CONTENT
from astrodino_seg.simulate.scene import Canvas, Scene
from astrodino_seg.simulate.sky import Sky

#: Rates that leave everything out.
EMPTY = dict.fromkeys(CONTENT, 0)
PLAIN = dict.fromkeys(CONDITIONS, 0)


def make_sky(n_bands=2, fwhm=2.0, beta=3.0, spikes=(0, 0., 0., 1., 1.),
             halo=(20.0, 0.0), aureole=0.0):
    """A sky of equal bands; by default its stars are plain Moffats."""
    bands = dict(zip('grz', (0.48, 0.62, 0.9)[:n_bands]))
    return Sky(bands, np.full(n_bands, fwhm), beta, np.ones(n_bands),
               {'aureole': aureole, 'spikes': spikes, 'halo': halo})


def make_canvas(shape=(96, 96), **kwargs):
    """An empty canvas under such a sky."""
    return Canvas(shape, make_sky(**kwargs))


def digest(scene):
    """A number that is the same for equal scenes only."""
    code = hashlib.sha256()
    for array in (scene.cube, scene.owner, scene.own_sn, scene.psf_fwhm,
                  *(scene.objects[k] for k in sorted(scene.objects))):
        code.update(np.ascontiguousarray(array).tobytes())
    return code.hexdigest()


def hand_scene(n_bands=2):
    """A galaxy (primary), a star on it, a faint and a small object."""
    y, x = np.mgrid[:64, :64]
    parts = np.zeros((4, n_bands, 64, 64))
    colours = np.array([[2, 1], [1, 1], [1, 3], [1, 1]])[:, :n_bands]
    r = np.hypot(x - 30, y - 30)
    shapes = [8 * np.exp(-r / 6) * (r < 26),
              30 * np.exp(-((x - 38)**2 + (y - 30)**2) / 4),
              0.6 * (np.hypot(x - 10, y - 55) < 2.9),
              20. * (np.hypot(x - 55, y - 8) < 1.1)]
    for k, (shape, colour) in enumerate(zip(shapes, colours)):
        parts[k] = shape * colour[:, None, None]
    sn = np.sqrt((parts**2).sum(axis=1))
    order = np.argsort(-sn, axis=0, kind='stable')[:3]
    own_sn = np.take_along_axis(sn, order, axis=0)
    objects = {'x': np.array([30, 38, 10, 55]), 'y': np.array([30, 30, 55, 8]),
               'cls': np.array([2, 1, 2, 2]),
               'kind': np.array(['spiral', 'star', 'field', 'field']),
               're': np.ones(4), 'primary': np.array([1, 0, 0, 0], bool)}
    return Scene(parts.sum(axis=0).astype(np.float32),
                 np.where(own_sn > 0, order + 1, 0).astype(np.int32),
                 own_sn.astype(np.float32),
                 dict(list({'g': .48, 'r': .62}.items())[:n_bands]),
                 np.full(n_bands, 3.0), objects), parts


def check_truth(image, truth):
    """What every observation promises, whatever is in it."""
    table, n = truth.objects, len(truth.objects['id'])
    assert image.cube.dtype == np.float32
    assert np.isfinite(image.cube).all()
    assert not image.cube[image.mask].any()
    assert truth.labels.shape == image.shape
    assert truth.light.shape == image.cube.shape
    labels = np.unique(truth.labels)
    assert labels[0] >= -1
    assert set(labels[labels > 0]) <= set(table['id'])
    assert {len(values) for values in table.values()} == {n}
    assert (truth.own_sn[truth.labels > 0] >= 0.5).all()
    assert (truth.own_sn[truth.labels == 0] < 0.5).all()
    assert (table['n_pixels'] >= 12).all()
    assert (table['sn'] >= 7).all()
    assert (truth.labels[image.mask.all(axis=0)] == -1).all()
    large = table['primary']
    assert (table['sn'][large] >= 30).all()
    assert (table['n_pixels'][large] >= 300).all()
    assert (table['cls'][large] == 2).all()
    assert table['flux'].shape == (n, image.n_bands)
    assert (table['flux'].sum(axis=1) > 0).all()
    assert ((table['blendedness'] >= 0) & (table['blendedness'] < 1)).all()
    assert set(table['overlaps']) <= {0, *table['id']}
    assert not (table['overlaps'] == table['id']).any()
    primary = dict(zip(table['id'], table['primary']))
    on_one = np.array([primary.get(k, False) for k in table['overlaps']],
                      bool)
    assert (table['on_primary'] | ~on_one).all()
    assert (np.diff(truth.shares, axis=0) <= 1e-6).all()
    lit = truth.own_sn > 0
    assert (truth.owners[0][lit] > 0).all()
    np.testing.assert_allclose(truth.shares.sum(axis=0)[lit], 1, rtol=1e-5)
