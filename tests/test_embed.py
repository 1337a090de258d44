# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the embed module.
"""

import signal
import subprocess
import sys
import weakref
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import NDData
from astropy.table import Table
from embed_toys import Same, make_backbone, make_images
from helpers import make_wcs
from numpy.testing import assert_allclose, assert_array_equal

from astrodino_seg.datasets import FolderImages
from astrodino_seg.embed import (
    cutouts,
    embed,
    embedding_table,
    label_cutouts,
    read_embeddings,
)
from astrodino_seg.embed.cutout import FLAGS
from astrodino_seg.errors import SkippedWarning
from astrodino_seg.image import as_image, write_image
from astrodino_seg.models.backbone import Backbone
from astrodino_seg.models.load import digest

BACKBONE = make_backbone()
IMAGES = make_images()


def features(image, size=None, backbone=BACKBONE):
    with torch.inference_mode():
        x = backbone.input(image, size=size)
        return backbone.vit.forward_features(x)


# ------------------------------------------------------------ the vectors

@pytest.mark.parametrize('size', [None, 24])
def test_what(size):
    cls = np.stack([features(one, size).cls[0].numpy() for one in IMAGES])
    patch = np.stack([features(one, size).patches[-1][0].numpy().reshape(
        16, -1).mean(axis=1) for one in IMAGES])
    for what, wanted in (('cls', cls), ('patch', patch),
                         ('both', np.hstack([cls, patch]))):
        got = embed(IMAGES, BACKBONE, what=what, size=size, batch_size=4)
        assert got.dtype == np.float32
        assert_allclose(got, wanted, atol=1e-5)
    # and they tell the images apart
    assert np.ptp(got, axis=0).max() > 1e-3


@pytest.mark.parametrize('batch_size', [1, 2, 5, 100])
def test_batches_make_no_difference(batch_size):
    assert_allclose(embed(IMAGES, BACKBONE, batch_size=batch_size),
                    embed(IMAGES, BACKBONE, batch_size=3), atol=1e-5)


def test_other_iterables():
    wanted = embed(IMAGES, BACKBONE)
    for images in (list(IMAGES), iter(IMAGES), map(as_image, IMAGES)):
        assert_array_equal(embed(images, BACKBONE), wanted)


# the workers are forks of a process that has threads
@pytest.mark.filterwarnings('ignore:.*fork:DeprecationWarning')
def test_workers():
    assert_array_equal(embed(IMAGES, BACKBONE, n_workers=1, batch_size=4),
                       embed(IMAGES, BACKBONE, batch_size=4))


def test_shapes_may_differ():
    images = [IMAGES[0], IMAGES[1][:, :24], IMAGES[2], IMAGES[3][:1, :, :24]]
    got = embed(images, BACKBONE)
    for vector, image in zip(got, images):
        assert_allclose(vector, features(image).cls[0], atol=1e-5)


def test_memory_is_flat():
    class Counted(Same):
        alive, most, n = [], 0, 0

        def __call__(self, image):
            self.alive[:] = [one for one in self.alive if one() is not None]
            self.alive.append(weakref.ref(image.cube))
            Counted.most = max(self.most, len(self.alive))
            Counted.n += 1
            return image.cube

    images = (make_images(1, n_bands=1, seed=k)[0] for k in range(60))
    backbone = make_backbone(Counted())
    assert embed(images, backbone, batch_size=4).shape == (60, 16)
    assert Counted.n == 60
    # the batch in the network, and the next
    assert Counted.most <= 8


def test_nothing_to_see():
    images = [IMAGES[0], np.full((2, 32, 40), 3.0), IMAGES[1]]
    with pytest.warns(SkippedWarning, match='left out: 1, .* first is .1.'):
        got = embed(images, BACKBONE)
    assert np.isnan(got).all(axis=1).tolist() == [False, True, False]
    assert_allclose(got[[0, 2]], embed(IMAGES[:2], BACKBONE), atol=1e-6)


@pytest.mark.parametrize(('options', 'message'), [
    ({'what': 'mean'}, "what must be one of .* got 'mean'"),
    ({'batch_size': 0}, 'batch_size must be an int of 1 or more'),
    ({'n_workers': -1}, 'n_workers must be an int of 0 or more'),
    ({'size': 0}, 'size must be one or two positive int')])
def test_bad_options(options, message, tmp_path):
    for call, more in ((embed, {}), (embedding_table, {}),
                       (embedding_table, {'path': tmp_path / 'v.fits'})):
        with pytest.raises(ValueError, match=message):
            call(IMAGES, BACKBONE, **options, **more)
    assert not list(tmp_path.iterdir())


def test_bad_images(tmp_path):
    for images in ([], iter([])):
        with pytest.raises(ValueError, match='images are empty'):
            embed(images, BACKBONE)
        with pytest.raises(ValueError, match='images are empty'):
            embedding_table(images, BACKBONE, path=tmp_path / 'v.fits')
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match=(
            r'images\[0\]: data must be a 2-D .*, got shape \(2, 2, 8, 8\)')):
        embed([np.zeros((2, 2, 8, 8))] * 2, BACKBONE)
    broken = make_backbone()
    broken.vit.cls_token.data[:] = np.nan
    with pytest.raises(ValueError, match=r'images\[0\]: .*not finite'):
        embed(IMAGES, broken)


# ------------------------------------------------------------- the table

def test_table_of_cutouts():
    image = as_image(np.random.default_rng(2).normal(size=(2, 60, 70)),
                     wcs=make_wcs(shape=(60, 70)))
    image.mask[:, :, 50:] = True
    image.cube[:, :, 50:] = 0
    some = cutouts(image, [(20, 30), (2, 30), (62, 30), (90, 2)], 16)
    with pytest.warns(SkippedWarning, match='left out: 2'):
        table = embedding_table(some, BACKBONE, what='patch', size=24)
    assert table.colnames == ['id', 'x', 'y', 'ra', 'dec', 'flags',
                              'embedding']
    assert table['flags'].tolist() == [
        0, FLAGS['edge'], FLAGS['empty'], FLAGS['off_image']]
    assert table['embedding'].shape == (4, 16)
    assert np.isnan(table['embedding']).all(axis=1).tolist() == [
        False, False, True, True]
    # normalised with its image, not by itself
    channels = BACKBONE.planes(image)[:, 22:38, 12:28]
    same = Backbone(BACKBONE.vit, Same(len(channels)), 'same')
    assert_allclose(table['embedding'][0], embed(
        [channels], same, what='patch', size=24)[0], atol=1e-5)
    sky = image.wcs.pixel_to_world(20, 30)
    assert SkyCoord(table['ra'], table['dec'])[0].separation(
        sky) < 1e-6 * u.arcsec
    assert table.meta == {
        'BACKBONE': 'toy', 'WEIGHTS': digest(BACKBONE.vit),
        'PLANES': repr(BACKBONE.planes), 'WHAT': 'patch',
        'IMGSIZE': '24 x 24', 'CREATOR': table.meta['CREATOR'],
        'FLAGS': 'edge=1, empty=2, off_image=4, failed=8'}
    assert table.meta['CREATOR'].startswith('astrodino_seg ')


def test_table_of_labels():
    labels = np.zeros((32, 40), int)
    labels[3:9, 4:12], labels[20:30, 20:30] = 2, 5
    table = embedding_table(label_cutouts(IMAGES[0], labels, 16), BACKBONE)
    assert table['id'].tolist() == [2, 5]
    assert 'ra' not in table.colnames


def test_table_of_files(tmp_path):
    for k, image in enumerate(IMAGES[:3]):
        header = make_wcs(shape=(32, 40)).to_header()
        header['CRVAL1'] += k
        fits.writeto(tmp_path / f'{k}.fits', image, header)
    table = embedding_table(FolderImages(tmp_path, bands='gr'), BACKBONE)
    assert [path[-6:] for path in table['path']] == ['0.fits', '1.fits',
                                                     '2.fits']
    assert_allclose(table['ra'], [150, 151, 152] * u.deg)
    assert_allclose(table['dec'], 2 * u.deg)
    Table({'path': ['1.fits', '2.fits'], 'object_id': ['x', 'y'],
           'ra': [7.0, 8.0], 'dec': [0.0, 1.0], 'mag': [20, 21],
           'flags': [3, 3]}).write(tmp_path / 'list.ecsv')
    again = embedding_table(FolderImages(tmp_path / 'list.ecsv', bands='gr'),
                            BACKBONE)
    # what a list tells goes before the WCS
    assert_allclose(again['ra'], [7, 8] * u.deg)
    assert again['id'].tolist() == ['x', 'y']
    assert again['mag'].tolist() == [20, 21]
    assert not again['flags'].any()
    assert_allclose(again['embedding'], table['embedding'][1:], atol=1e-6)


def test_table_of_records():
    records = [(image, {'object_id': f'n{k}', 'ra': k, 'dec': 2 * k})
               for k, image in enumerate(IMAGES)]
    table = embedding_table(iter(records), BACKBONE)
    assert table['id'].tolist() == ['n0', 'n1', 'n2', 'n3', 'n4', 'n5']
    assert_allclose(table['dec'], [0, 2, 4, 6, 8, 10] * u.deg)
    assert_array_equal(table['embedding'], embed(IMAGES, BACKBONE))
    records[3][1]['object_id'] = 70 * 'n'
    with pytest.raises(ValueError, match='64 bytes or fewer'):
        embedding_table(iter(records), BACKBONE)


def test_digest_of_weights():
    code = digest(BACKBONE.vit)
    assert code == digest(make_backbone().vit)
    other = make_backbone()
    other.vit.norm.bias.data[0] += 1e-6
    assert digest(other.vit) != code


# ------------------------------------------------- one image, or nothing

def test_one_image(tmp_path):
    """It need not be in a list."""
    path = tmp_path / 'one.fits'
    write_image(path, as_image(IMAGES[2], bands='gr'))
    for one in (path, str(path), as_image(IMAGES[2]), NDData(IMAGES[2]),
                {'g': IMAGES[2][0], 'r': IMAGES[2][1]}):
        found = embed(one, BACKBONE)
        assert found.shape == (1, 16)
        assert_array_equal(found, embed([one], BACKBONE))
    assert len(embedding_table(path, BACKBONE)) == 1
    with pytest.raises(ValueError, match='is a folder; .*FolderImages reads'):
        embed(tmp_path, BACKBONE)
    with pytest.raises(FileNotFoundError, match='no such file: .*none.fits'):
        embed(str(tmp_path / 'none.fits'), BACKBONE)


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_stamp_without_a_valid_pixel(value):
    """A row of NaN, and a warning; the others have their vectors."""
    images = IMAGES[:3].copy()
    images[1] = value
    with pytest.warns(SkippedWarning, match="the first is '1': all pixels"):
        found = embed(images, BACKBONE)
    assert np.isnan(found[1]).all()
    assert_allclose(found[::2], embed(IMAGES[:3:2], BACKBONE), rtol=1e-5)
    with pytest.warns(SkippedWarning):
        table = embedding_table(images, BACKBONE)
    assert table['flags'].tolist() == [0, FLAGS['empty'], 0]


@pytest.mark.parametrize('n_workers', [0, 1])
def test_one_that_cannot_be_used(tmp_path, n_workers):
    """It ends nothing: it has a row of NaN, a flag, and is said."""
    images = [IMAGES[0], np.zeros((2, 2, 8, 8)), IMAGES[1],
              str(tmp_path / 'none.fits'), 'text', IMAGES[2]]
    path = tmp_path / 'v.fits'
    with pytest.warns(SkippedWarning, match='left out: 3, .*first') as said:
        table = embedding_table(images, BACKBONE, path=path, batch_size=2,
                                n_workers=n_workers)
    assert [k for k, _ in said[0].message.skipped] == [1, 3, 4]
    assert 'none.fits' in said[0].message.skipped[1][1]
    assert table['flags'].tolist() == [0, 8, 0, 8, 8, 0]
    assert FLAGS['failed'] == 8
    assert_allclose(table['embedding'][[0, 2, 5]], embed(IMAGES[:3], BACKBONE),
                    rtol=1e-5)
    assert np.isnan(table['embedding'][[1, 3, 4]]).all()
    assert len(read_embeddings(path)) == 6


# -------------------------------------------------- stopped, and gone on

class Killed(list):
    """Images; the process is killed when it reads one of them."""

    at = None
    read = 0

    def __getitem__(self, i):
        if i == self.at:
            raise KeyboardInterrupt
        self.read += 1
        return super().__getitem__(i)


@pytest.mark.parametrize('at', [0, 1, 4, 7, 12])
@pytest.mark.parametrize('kind', [list, iter])
def test_resume(tmp_path, at, kind):
    images = [one[:, :, :24 + 8 * (k % 3)] for k, one in
              enumerate(make_images(13))]
    options = {'batch_size': 4, 'what': 'both'}
    wanted = embedding_table(kind(images), BACKBONE, **options,
                             path=tmp_path / 'whole.fits')
    path, part = tmp_path / 'v.fits', tmp_path / 'v.fits.part'
    some = Killed(images)
    some.at = at
    with pytest.raises(KeyboardInterrupt):
        embedding_table(some if kind is list else (some[i] for i in range(13)),
                        BACKBONE, path=path, **options)
    assert part.exists()
    assert not path.exists()
    if kind is list:
        some.at, some.read = None, 0
    else:       # another generator, which has no length either
        some = iter(images)
    got = embedding_table(some, BACKBONE, path=path, **options)
    if kind is list:
        assert some.read == 13 - 4 * (at // 4)
    assert_array_equal(got['embedding'], wanted['embedding'])
    for name in wanted.colnames:
        assert_array_equal(read_embeddings(path)[name],
                           read_embeddings(tmp_path / 'whole.fits')[name])
    assert not part.exists()


KILL = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import numpy as np
from astrodino_seg.embed import cutouts, embedding
from embed_toys import make_backbone

def killed(*args, n=[0], original=embedding._vectors):
    n[0] += 1
    if n[0] == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*args)

embedding._vectors = killed
image = np.load({image!r})
embedding.embedding_table(cutouts(image, {where}, 16), make_backbone(),
                          path={path!r}, batch_size=2)
"""


def test_kill(tmp_path):
    image = np.random.default_rng(0).normal(size=(2, 60, 60))
    np.save(tmp_path / 'image.npy', image)
    where = [(10 + 4 * k, 20 + k) for k in range(9)]
    path = tmp_path / 'v.fits'
    code = KILL.format(tests=str(Path(__file__).parent), where=where,
                       image=str(tmp_path / 'image.npy'), path=str(path))
    done = subprocess.run([sys.executable, '-c', code])
    assert done.returncode == -signal.SIGKILL
    assert not path.exists()
    some = cutouts(image, where, 16)
    read = []
    with pytest.MonkeyPatch.context() as patch:
        cut = type(some).cut
        patch.setattr(type(some), 'cut', lambda self, i, *args: (
            read.append(i) or cut(self, i, *args)))
        got = embedding_table(some, BACKBONE, path=path, batch_size=2)
    # two batches were there
    assert read == [4, 5, 6, 7, 8]
    wanted = embedding_table(some, BACKBONE, batch_size=2)
    assert_array_equal(got['embedding'], wanted['embedding'])
    assert sorted(p.name for p in tmp_path.iterdir()) == ['image.npy',
                                                          'v.fits']


def test_of_another_run(tmp_path):
    path = tmp_path / 'v.fits'
    some = Killed(IMAGES)
    some.at = 3
    with pytest.raises(KeyboardInterrupt):
        embedding_table(some, BACKBONE, path=path, batch_size=2)
    some.at = None
    for options, message in (({'size': 16}, 'IMGSIZE was own, is 16 x 16'),
                             ({'batch_size': 3}, 'batch_size was 2, is 3'),
                             ({'what': 'both'}, 'WHAT was cls, is both')):
        with pytest.raises(ValueError, match=message):
            embedding_table(some, BACKBONE, path=path,
                            **{'batch_size': 2, **options})
    other = make_backbone()
    other.vit.norm.bias.data[0] += 1
    with pytest.raises(ValueError, match='WEIGHTS was'):
        embedding_table(some, other, path=path, batch_size=2)
    with pytest.raises(ValueError, match='n was 6, is 5'):
        embedding_table(Killed(IMAGES[:5]), BACKBONE, path=path,
                        batch_size=2)


@pytest.mark.parametrize('kind', [FolderImages, list])
def test_replaced_files_are_another_run(tmp_path, monkeypatch, kind):
    path, folder = tmp_path / 'v.fits', tmp_path / 'images'
    folder.mkdir()
    names = [folder / f'{k}.fits' for k in range(3)]
    for name, image in zip(names, IMAGES):
        fits.writeto(name, image)

    def images():
        return names if kind is list else FolderImages(folder)

    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr('astrodino_seg.embed.embedding._vectors', killed)
        with pytest.raises(KeyboardInterrupt):
            embedding_table(images(), BACKBONE, path=path)
    content = names[1].read_bytes()
    fits.writeto(names[1], IMAGES[0], overwrite=True)
    with pytest.raises(ValueError, match='sha256 was'):
        embedding_table(images(), BACKBONE, path=path)
    names[1].write_bytes(content)       # at another time
    assert len(embedding_table(images(), BACKBONE, path=path)) == 3


def test_other_positions_are_another_run(tmp_path, monkeypatch):
    path = tmp_path / 'v.fits'
    first = cutouts(IMAGES[0], [(10, 10), (20, 20)], 16)
    other = cutouts(IMAGES[0], [(10, 10), (20, 21)], 16)

    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr('astrodino_seg.embed.embedding._vectors', killed)
        with pytest.raises(KeyboardInterrupt):
            embedding_table(first, BACKBONE, path=path)
    with pytest.raises(ValueError, match='sha256 was'):
        embedding_table(other, BACKBONE, path=path)
    with pytest.raises(ValueError, match='sha256 was'):
        embedding_table(cutouts(IMAGES[1], [(10, 10), (20, 20)], 16),
                        BACKBONE, path=path)
    assert len(embedding_table(first, BACKBONE, path=path)) == 2


def test_files_that_exist(tmp_path):
    path = tmp_path / 'v.fits'
    embedding_table(IMAGES, BACKBONE, path=path)
    with pytest.raises(FileExistsError, match='overwrite=True'):
        embedding_table(IMAGES, BACKBONE, path=path)
    embedding_table(IMAGES[:2], BACKBONE, path=path, overwrite=True)
    assert len(read_embeddings(path)) == 2
