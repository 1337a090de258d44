# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of the benchmark of photometry: its galaxies, tools, and figures.
"""

import json
import sys

import numpy as np
import pytest
from benchmark_toys import script
from numpy.testing import assert_allclose

from astrodino_seg.errors import MissingToolError
from astrodino_seg.image import as_image

galsim = pytest.importorskip('galsim')
NAMES = 'SEP', 'Source Extractor', 'photutils'


@pytest.fixture(scope='module')
def bench():
    return script('photometry.total_flux')


@pytest.fixture(scope='module')
def galaxies():
    return script('photometry.galaxies')


@pytest.fixture(params=NAMES)
def tool(request):
    """A traditional tool, if it is here."""
    make, settings = script('photometry.tools').TUNED[request.param]
    try:
        return make(**settings['alone'])
    except (ImportError, MissingToolError) as err:
        pytest.skip(str(err))


def test_a_disc_has_the_form_that_is_asked_for(galaxies):
    """Peak, total and axes of an exponential (Graham & Driver 2005)."""
    image, light = galaxies.sersic(1, 8, 50, 3)
    assert_allclose(light.max(), 50)
    # the PSF takes of the peak only
    assert 1 < light.sum() / (2 * np.pi * 8**2 * 0.7 * 50) < 1.4
    y, x = np.indices(light.shape)
    weight = light / light.sum()
    xx, yy = ((weight * (a - (weight * a).sum())**2).sum() for a in (x, y))
    assert_allclose(xx, 3 * 8**2 + 1.3**2, rtol=0.05)
    assert_allclose((yy - 1.3**2) / (xx - 1.3**2), 0.7**2, rtol=0.05)
    noise = image - light - galaxies.SKY
    assert_allclose(noise.std(), 1, rtol=0.02)


@pytest.mark.parametrize('depth', ['shallow', 'deep'])
def test_cosmos_galaxies_have_their_flux(galaxies, depth):
    table = galaxies.catalogue()
    assert len(table) == 100
    for k in (3, 7):                # one profile, and two
        _, light = galaxies.cosmos(k, depth)
        flux = galaxies.DEPTHS[depth] * 10**(0.4 * (22.5 - table['mag'][k]))
        assert_allclose(light.sum(), flux, rtol=0.05)
    assert (table['bulge_share'][[3, 7]] > 0).tolist() == [False, True]


def test_tools_measure_a_bright_disc(bench, galaxies, tool):
    record = bench.of_galaxy(tool, *galaxies.sersic(1, 3, 50, 2))
    assert_allclose(record['total'], 1, atol=0.06)
    assert_allclose(record['half'], 1, atol=0.08)
    assert record['label'] < record['total']
    assert np.isfinite(record['pull'])
    assert 0 < record['limit'] < 0.01


def test_bands_have_the_same_apertures(galaxies, tool):
    """A band of half the light has half the flux, noise apart."""
    image, light = galaxies.sersic(1, 3, 50, 1)
    found = tool(as_image(np.stack([image, image - light / 2])))
    k = found.labels[np.unravel_index(light.argmax(), light.shape)] - 1
    assert_allclose(found.flux[1, k] / found.flux[0, k], 0.5, atol=0.01)
    assert found.error.shape == found.isophotal.shape == found.flux.shape
    assert found.half.shape == found.flux.shape[1:]


@pytest.mark.filterwarnings('ignore:No sources were found')
def test_what_is_not_found_is_lost(bench, tool):
    rng = np.random.default_rng(1)
    image = rng.normal(10, 1, (64, 64))
    light = np.zeros((64, 64))
    light[30, 30] = 1e-3
    assert set(bench.of_galaxy(tool, image, light)) == {'limit'}


def test_tools_that_are_missing_are_left_out(monkeypatch, capsys):
    monkeypatch.setenv('PATH', '')
    monkeypatch.setitem(sys.modules, 'sep', None)
    found = script('photometry.tools').tools('alone')
    assert set(found) == {'astrodino', 'photutils'}
    said = capsys.readouterr().out
    assert 'without SEP' in said
    assert 'without Source Extractor' in said


def test_no_flux_is_no_magnitude_but_counts(bench):
    """The median knows what has none, and no number is what is not known."""
    assert bench.magnitude(0.1) == pytest.approx(2.5)
    assert bench.magnitude(-1) == np.inf
    assert bench.middle([0.0, 1.0, np.inf], 1).startswith('1.0')
    assert bench.middle([0.0, 1.0, 2.0, np.nan], 1).startswith('1.0')
    assert bench.spread(np.random.default_rng(0).normal(
        size=4000), 1) == '1.0'


def test_command(bench, tmp_path, monkeypatch):
    """Tables and figure of what was measured before; nothing is run anew."""
    monkeypatch.setattr(bench, 'SIDES', {3: 128, 8: 192})
    record = {'limit': 0.01, 'total': 10**0.04, 'pull': 1.0, 'half': 1.0,
              'label': 0.9}
    seen = {'sn': 20.0, 'galaxy': 1.0, 'blendedness': 0.0, 'label': 0.1,
            'total': 0.02, 'pull': 0.5, 'colour': 0.0}
    for name in ('astrodino', 'photutils'):
        jobs = [job for job, _ in bench.galaxy_jobs(None, 2, 50)]
        (tmp_path / f'alone-{name}.jsonl').write_text(''.join(
            json.dumps({'job': job, 'records': [record]}) + '\n'
            for job in jobs))
        (tmp_path / f'scenes-{name}.jsonl').write_text(json.dumps(
            {'job': [0], 'records': [seen, seen, {**seen, 'sn': 9.0}]}) + '\n')
    monkeypatch.setattr(bench, 'tools', lambda kind, model: dict.fromkeys(
        ('astrodino', 'photutils')))
    monkeypatch.setattr('sys.argv', [
        'total_flux', str(tmp_path), '--draws', '2', '--every', '50',
        '--scenes', '1', '--docs', str(tmp_path)])
    bench.main()
    text = (tmp_path / 'total_flux.txt').read_text()
    assert '-0.100 ± 0.000' in text
    assert '0.020 ± 0.000' in text
    assert '12 of 12' in text               # two scales, peaks and draws
    assert '2 of 2' in text                 # COSMOS galaxies
    assert (tmp_path / 'bias.png').stat().st_size > 1000


# --------------------------------------------------------- the real spiral

def test_systems_of_surveys_agree_on_a_star():
    """Of a star as red as the sun all are alike within some 0.1 mag."""
    spiral = script('photometry.spiral')
    mags = np.array([15.44, 15.0, 14.88, 14.86])
    for survey in spiral.SURVEYS:
        assert_allclose(spiral.as_sdss(survey, mags), mags, atol=0.1)
    # Tonry et al. 2012: at g - r = 0.44
    assert_allclose(spiral.as_sdss('PS1', mags)[0] - mags[0],
                    0.013 + 0.145 * 0.44 + 0.019 * 0.44**2)
    assert_allclose(spiral.as_sdss('DES', mags)[2] - mags[2],
                    0.167 * 0.12 - 0.027)
