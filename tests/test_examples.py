# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The examples run as they stand, and the demo image is what it says.
"""

import runpy
import sys
from pathlib import Path

import pytest

from astrodino_seg.datasets import demo_image

EXAMPLES = Path(__file__).parents[1] / 'examples'
SLOW = ['adapt', 'morphology']      # a training, and half a hundred scenes
NEEDS = {'adapt': 'lightning_fabric', 'morphology': 'sklearn'}


@pytest.mark.parametrize('path', [
    pytest.param(path, marks=[pytest.mark.slow] if any(
        path.stem.endswith(name) for name in SLOW) else [])
    for path in sorted(EXAMPLES.glob('plot_*.py'))],
    ids=lambda path: path.stem)
def test_example_runs(path, tmp_path, monkeypatch):
    """Without a warning, and it leaves a picture."""
    pytest.importorskip('matplotlib').use('agg')
    if 'simulate' in path.read_text():
        pytest.importorskip('galsim')
    pytest.importorskip(NEEDS.get(path.stem.removeprefix('plot_'), 'numpy'))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', [str(path)])
    runpy.run_path(path, run_name='__main__')
    assert list(tmp_path.glob('*.png'))


def test_demo_image():
    image = demo_image()
    assert image.bands == ('g', 'r', 'i', 'z')
    assert image.shape == (448, 448)
    # 0.262 arcsec, north up, east left
    scale = image.wcs.proj_plane_pixel_scales()[0].to_value('arcsec')
    assert scale == pytest.approx(0.262, rel=1e-6)
    assert image.wcs.wcs.cdelt[0] < 0 < image.wcs.wcs.cdelt[1]
