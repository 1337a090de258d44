# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the datasets package: folders of pictures.
"""

import numpy as np
import pytest
from helpers import check_promises
from numpy.testing import assert_array_equal

from astrodino_seg.datasets.folder import PictureFolder, picture_image

Picture = pytest.importorskip('PIL.Image')
PIXELS = np.random.default_rng(0).integers(0, 256, (4, 8, 9, 3), np.uint8)
NAMES = ['a/edge on/1.png', 'a/spiral/2.PNG', 'b/edge on/0.png',
         'b/spiral/9.png']


@pytest.fixture
def folder(tmp_path):
    for pixels, name in zip(PIXELS, NAMES):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Picture.fromarray(pixels).save(path)
    (tmp_path / 'a' / 'readme.txt').write_text('no picture')
    return tmp_path


def test_pictures(folder):
    pictures = PictureFolder(folder)
    assert len(pictures) == 4
    assert pictures.labels.tolist() == ['edge on', 'spiral'] * 2
    for k, pixels in enumerate(PIXELS):
        assert_array_equal(pictures.rgb(k), pixels)
        check_promises(pictures[k])
        assert_array_equal(pictures[k].cube, picture_image(pixels).cube)
    assert pictures[0].bands == ('g', 'r', 'z')
    assert_array_equal(pictures[0].cube, PIXELS[0].transpose(2, 0, 1)[::-1])
    part = pictures[pictures.labels == 'spiral']
    assert len(part) == 2
    assert_array_equal(part.rgb(1), PIXELS[3])
    assert_array_equal(pictures[-1:].rgb(0), PIXELS[3])


def test_jpeg(tmp_path):
    grey = np.full((16, 16), 90, np.uint8)
    Picture.fromarray(grey).save(tmp_path / 'x.jpg')
    pixels = PictureFolder(tmp_path).rgb(0)
    assert pixels.shape == (16, 16, 3)
    assert np.abs(pixels - 90.0).max() <= 1


def test_bad_folders(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match='no such file or folder'):
        PictureFolder(tmp_path / 'nowhere')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(FileNotFoundError, match='no file .jpg'):
        PictureFolder(tmp_path / 'empty')
    (folder / NAMES[0]).write_bytes(b'<html>')
    with pytest.raises(ValueError, match="1.png' cannot be read"):
        PictureFolder(folder)[0]
