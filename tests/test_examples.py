# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The examples run as they stand, and the demo image is what it says.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from astrodino_seg.datasets import demo_image

EXAMPLES = Path(__file__).parents[1] / 'examples'


@pytest.mark.parametrize('path', sorted(EXAMPLES.glob('plot_*.py')),
                         ids=lambda path: path.stem)
def test_example_runs(path, tmp_path):
    run = subprocess.run([sys.executable, str(path)], cwd=tmp_path,
                         env={**os.environ, 'MPLBACKEND': 'Agg'},
                         capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert list(tmp_path.glob('*.png'))


def test_demo_image():
    image = demo_image()
    assert image.bands == ('g', 'r', 'i', 'z')
    assert image.shape == (448, 448)
    # 0.262 arcsec, north up, east left
    scale = image.wcs.proj_plane_pixel_scales()[0].to_value('arcsec')
    assert scale == pytest.approx(0.262, rel=1e-6)
    assert image.wcs.wcs.cdelt[0] < 0 < image.wcs.wcs.cdelt[1]
