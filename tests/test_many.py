# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of many images in one call.
"""

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from numpy.testing import assert_allclose, assert_array_equal

import astrodino_seg
from astrodino_seg import DinoSegmenter, SegmentationResult, as_image
from astrodino_seg.embed.cutout import cutouts
from astrodino_seg.errors import EmptyImageError

SAMPLE = Path(astrodino_seg.__file__).parent / 'data' / 'demo_griz.fits.fz'


@pytest.fixture(scope='module')
def demo():
    return as_image(SAMPLE)


@pytest.fixture(scope='module')
def finder():
    return DinoSegmenter(bfloat16=False)


@pytest.fixture(scope='module')
def stamps(demo):
    """(5, 4, 64, 64), the fourth without sources."""
    some = [demo.cube[:, y:y + 64, x:x + 64] for y, x in (
        (90, 260), (150, 300), (20, 30), (0, 0), (300, 200))]
    some[3] = np.random.default_rng(0).normal(size=some[0].shape)
    return np.array(some, np.float32)


def is_equal(one, other):
    """The same labels and table."""
    assert_array_equal(one.segmentation_image.data,
                       other.segmentation_image.data)
    assert one.table.colnames == other.table.colnames
    for name in ('x_centroid', 'p_star', f'flux_{one.image.bands[0]}'):
        assert_allclose(one.table[name], other.table[name], rtol=1e-4,
                        atol=1e-6)
    return True


@pytest.mark.filterwarnings('ignore:No sources')
def test_as_one_by_one(finder, stamps):
    images = [*stamps[:3], stamps[0, :, :40, :48], *stamps[3:]]
    found = list(finder.segment_many(images, background='flat'))
    assert len(found) == 6
    for image, one in zip(images, found):
        alone = finder.segment(image, background='flat')
        assert (alone is None) == (one is None)
        assert one is None or is_equal(one, alone)
    assert sum(one is not None for one in found) > 3


def test_bad_items_end_nothing(finder, stamps):
    wrong = [stamps[0], None, 'nothing.fits', stamps[0] * np.nan, stamps[1],
             np.zeros(3)]
    found = list(finder.segment_many(wrong))
    assert [type(one) for one in found] == [
        SegmentationResult, ValueError, FileNotFoundError, EmptyImageError,
        SegmentationResult, ValueError]
    for k in (0, 4):
        assert is_equal(found[k], finder.segment(wrong[k]))


def test_error_in_the_network(finder, stamps, monkeypatch):
    """What is too much at once is done one by one."""
    again = DinoSegmenter(bfloat16=False)
    model = again._fetch_model()
    tokens = model.backbone.tokens

    def fails(x):
        if len(x) > 1:
            raise MemoryError
        return tokens(x)

    monkeypatch.setattr(model.backbone, 'tokens', fails)
    found = list(again.segment_many(stamps[:2]))
    for one, stamp in zip(found, stamps, strict=False):
        assert is_equal(one, finder.segment(stamp))


def test_folder(finder, stamps, tmp_path):
    for name, cube in zip(('b.fits', 'a.fits.gz', 'c.txt'), stamps):
        if name != 'c.txt':
            fits.writeto(tmp_path / name, cube)
    (tmp_path / 'c.txt').write_text('no image')
    found = list(finder.segment_many(tmp_path, bands='griz'))
    assert len(found) == 2
    assert is_equal(found[1], finder.segment(stamps[0], bands='griz'))


def test_planes_of_each(finder, stamps):
    error = np.stack([np.full_like(stamps[0], s) for s in (0.1, 0.2)])
    mask = [np.zeros((64, 64), bool), np.eye(64, dtype=bool)]
    found = finder.segment_many(stamps[:2], error=error, mask=mask)
    for k, one in enumerate(found):
        assert_allclose(one.noise[:, 0, 1], 0.1 * (k + 1), rtol=1e-6)
        assert_array_equal(np.isinf(one.noise[0]), mask[k])


def test_positions_on_one_image(finder, demo):
    some = cutouts(demo, [(290, 120), (-50, 4), (330, 180)], 64)
    found = list(finder.segment_many(some))
    assert isinstance(found[1], ValueError)
    assert found[0].image.shape == found[2].image.shape == (64, 64)


def test_wrong_argument(finder, stamps):
    with pytest.raises(ValueError, match='n_pixels'):
        DinoSegmenter(n_pixels=0).segment_many(stamps)
