# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of total fluxes: what lies beyond a label.
"""

import numpy as np
import pytest
import torch
from astropy import units as u
from numpy.testing import assert_allclose

from astrodino_seg import DinoSegmenter, as_image, load_model
from astrodino_seg.catalog import (
    EDGES,
    N_FEATURES,
    features,
    growth,
    half_light_radius,
    measure_light,
)
from astrodino_seg.models.decision import Totals
from astrodino_seg.simulate import make_scene
from astrodino_seg.train import fit_totals, totals

SHAPE = 200, 220


def disc(x=100, y=90, scale=9.0, ratio=0.6, angle=0.5, shape=SHAPE):
    """An exponential disc of a total of 1, and its elliptical radius."""
    yy, xx = np.indices(shape)
    dx, dy = xx - x, yy - y
    u, v = (dx * np.cos(angle) + dy * np.sin(angle),
            dy * np.cos(angle) - dx * np.sin(angle))
    r = np.hypot(u, v / ratio)
    return np.exp(-r / scale) / (2 * np.pi * scale**2 * ratio), r


@pytest.fixture
def one():
    """A disc, the label of its inner part, and the annuli about it."""
    light, r = disc()
    labels = (r < 20).astype(int)
    return light, r, labels, growth(light, np.ones(SHAPE, bool), labels)


def test_annuli_are_ellipses(one):
    """Of area, light and place of those of the disc itself."""
    light, r, labels, found = one
    assert_allclose(found.radius, np.sqrt(labels.sum() / np.pi))
    assert_allclose(found.valid, found.area, rtol=0.1, atol=8)
    # the border of the label is at 1
    inside = EDGES[1:] <= 1
    assert_allclose(found.own[:, inside], found.valid[:, inside], rtol=0.05)
    assert found.own[:, ~inside].sum() < 0.03 * labels.sum()
    edges = EDGES * 20
    expected = [light[(r >= a) & (r < b)].sum()
                for a, b in zip(edges, edges[1:])]
    assert_allclose(found.light[0], expected, rtol=0.08, atol=1e-3)


def test_half_light_radius_of_an_exponential(one):
    """1.678 scale lengths (Graham & Driver 2005), along the mean axis."""
    *_, found = one
    half = half_light_radius(found, np.ones(1))
    assert_allclose(half, 1.678 * 9 * np.sqrt(0.6), rtol=0.03)


def test_half_beyond_the_annuli_is_not_known(one):
    *_, found = one
    assert np.isnan(half_light_radius(found, np.array([4.0]))).all()


def test_pixels_of_others_and_invalid_ones_do_not_count(one):
    light, r, labels, alone = one
    other = labels.copy()
    other[88:93, 112:118] = 2           # on the first
    valid = np.ones(SHAPE, bool)
    valid[:60] = False
    both = growth(np.where(valid, light, 0), valid, other)
    assert both.valid[0].sum() < alone.valid[0].sum() - 30
    assert_allclose(both.own.sum(axis=1), np.bincount(other.ravel())[1:])
    # surface brightness is what it was
    mean, before = (g.light[0] / g.valid[0] for g in (both, alone))
    assert_allclose(mean[:8], before[:8], rtol=0.1)


def test_units_and_bands_do_not_matter():
    """Features have no unit; two bands that are alike are as one."""
    light, r = disc()
    labels = (r < 20).astype(np.int32)
    noise = np.full((1, *SHAPE), 1e-4, np.float32)

    def measured(scale, n):
        cube = np.repeat(scale * light[None].astype(np.float32), n, axis=0)
        image = as_image(cube, bands='gr'[:n])
        flux = scale * (light * labels).sum()
        error = scale * 1e-4 * np.sqrt(labels.sum())
        table = {f'{name}_{band}': np.array([value]) for band in 'gr'[:n]
                 for name, value in (('flux', flux), ('flux_err', error))}
        return measure_light(image, np.zeros_like(cube),
                             scale * np.repeat(noise, n, axis=0), labels,
                             Rows(table))

    one = measured(1.0, 1)
    assert features(one).shape == (1, N_FEATURES)
    assert_allclose(one.flux / one.error, (light * labels).sum() / (
        1e-4 * np.sqrt(labels.sum())), rtol=1e-5)
    assert_allclose(features(measured(50.0, 1)), features(one), rtol=1e-3,
                    atol=1e-4)
    two = measured(1.0, 2)
    assert_allclose(two.flux / two.error, 2**0.5 * one.flux / one.error)
    assert_allclose(two.growth.light / two.flux, one.growth.light / one.flux,
                    rtol=1e-4)


class Rows(dict):
    """A table of one row."""

    def __len__(self):
        return 1


# ------------------------------------------------------- in the catalogue

def test_columns():
    """As the model says, in the unit of the image; colours stay."""
    model = load_model()
    model.put_totals(Totals(N_FEATURES))
    with torch.no_grad():               # twice the flux, within a tenth
        last = model.totals.net[-1]
        last.weight.zero_()
        last.bias.copy_(torch.tensor([2.0, 0.1]).log())
    light, _ = disc()
    rng = np.random.default_rng(1)
    cube = np.stack([4e4 * light, 2e4 * light]) + rng.normal(
        size=(2, *SHAPE))
    finder = DinoSegmenter(model=model)
    result = finder.segment(as_image(cube * u.nJy, bands='gr'))
    table = result.table
    assert table['total_flux_g'].unit == u.nJy
    assert table['half_light_radius'].unit == u.pix
    brightest = table['flux_g'].argmax()
    # what is not known has colours of its own: two thirds of all is in g
    for band, apart in (('g', 1 / 3), ('r', 2 / 3)):
        assert_allclose(table[f'total_flux_{band}'] / table[f'flux_{band}'],
                        2, rtol=1e-6)
        ratio = table[f'total_flux_err_{band}'] / table[f'total_flux_{band}']
        assert_allclose(ratio[brightest], 0.1 * (1 + 2 * apart)**0.5,
                        rtol=0.03)
    alone = finder.segment(as_image(cube[:1], bands='g')).table
    assert_allclose(alone['total_flux_err_g'].max()
                    / alone['total_flux_g'].max(), 0.1, rtol=0.03)
    model.totals = None
    assert 'total_flux_g' not in DinoSegmenter(model=model).segment(
        as_image(cube, bands='gr')).table.colnames


def test_file(tmp_path):
    """They are kept with the model."""
    model = load_model()
    model.put_totals(Totals(N_FEATURES, width=8))
    model.save(tmp_path / 'model.safetensors')
    again = load_model(tmp_path / 'model.safetensors')
    known = np.random.default_rng(0).normal(size=(5, N_FEATURES)).astype('f4')
    for one, other in zip(model.totals.factors(known),
                          again.totals.factors(known)):
        assert_allclose(one, other)


def test_fit_needs_scenes():
    with pytest.raises(ValueError, match='n_scenes must be 10 or more, got 3'):
        fit_totals(load_model(), [None] * 3)


def test_what_is_asked_of_one_galaxy_alone():
    """Its label has less than all of its light, and never much more."""
    finder = DinoSegmenter()
    ratio = [totals.totals_alone(finder, np.random.default_rng(seed)).truth
             for seed in (1, 2, 3)]
    ratio = np.exp(np.concatenate(ratio))
    assert len(ratio) > 0
    assert (ratio > 0.9).all()
    assert (ratio < 8).all()


def test_fit(monkeypatch):
    """Of scenes the held out ones are less wrong than their labels."""
    pytest.importorskip('galsim')
    scenes = [make_scene(k, size=128, psf_fwhm=2.5, band_set='grz')
              for k in range(10)]
    monkeypatch.setattr(totals, 'ALONE', 1)     # the others take longer
    monkeypatch.setattr(totals, 'RADII', (2.5, 12))
    model = fit_totals(load_model(), scenes, n_steps=150, progress=False)
    known = model.provenance['totals']
    assert known['n_objects'] > known['n_held'] > 0
    assert abs(known['mag_bias']) < 0.3
    factor, error = model.totals.factors(
        np.zeros((1, N_FEATURES), np.float32))
    assert factor > 0
    assert error > 0
    again = fit_totals(load_model(), scenes, n_steps=150, progress=False)
    assert again.provenance['totals'] == known
