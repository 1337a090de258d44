# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What scenes and observations are made of, and how much of each.

These two tables are all there is to switch: a rate of 0 leaves an ingredient
out. `~astrodino_seg.simulate.make_scene` takes the names of `CONTENT` and
`~astrodino_seg.simulate.observe` those of `CONDITIONS`, in their ``rates``.
"""

import math
from collections.abc import Mapping
from numbers import Real
from typing import NamedTuple


class Rate(NamedTuple):
    """How often an ingredient comes."""

    #: The default.
    value: float
    #: What the ingredient is, and what its rate counts.
    what: str


#: Ingredients of a scene.
CONTENT = {
    'large': Rate(2.2, 'mean number of large, resolved galaxies outside of '
                       'groups, six at most; 0 leaves out groups too'),
    'spiral': Rate(.34, 'grand-design and flocculent spirals: share of the '
                        'large galaxies, as for the next eight'),
    'lenticular': Rate(.1, 'a bulge in a smooth red disc'),
    'elliptical': Rate(.1, 'spheroids'),
    'irregular': Rate(.14, 'clumpy blue dwarfs'),
    'edge_on': Rate(.12, 'discs seen from the side, with a dust lane'),
    'lsb': Rate(.09, 'low-surface-brightness discs'),
    'disturbed': Rate(.09, 'galaxies with tidal tails'),
    'shells': Rate(.03, 'spheroids with shells'),
    'cosmos': Rate(.1, 'real COSMOS galaxies, enlarged and coloured; only '
                       'where their folder is given'),
    'bar': Rate(.4, 'probability that a spiral has a bar'),
    'ring': Rate(.2, 'probability that a spiral has a ring'),
    'knots': Rate(1., 'factor on the number of HII regions'),
    'clusters': Rate(0., 'probability that a galaxy that forms stars is '
                         'strewn with clusters like points, which are part '
                         'of it'),
    'dust': Rate(1., 'factor on the optical depth of dust lanes'),
    'specks': Rate(.5, 'probability that a spheroid has specks like '
                       'globular clusters'),
    'group': Rate(.06, 'probability of the core of a group or cluster'),
    'icl': Rate(.7, 'probability that the first galaxy of a group has an '
                    'envelope of intracluster light, which is counted as '
                    'its own'),
    'pair': Rate(.5, 'probability that a large galaxy lies on or beside the '
                     'one before it; two nuclei are two objects'),
    'companion': Rate(.35, 'probability that a large galaxy has a small '
                           'companion'),
    'star_on_galaxy': Rate(.6, 'mean number of stars in front of a large '
                               'galaxy'),
    'background': Rate(.4, 'mean number of small red galaxies that shine '
                           'through a large one'),
    'field': Rate(1., 'factor on the number of small galaxies'),
    'star': Rate(1., 'factor on the number of stars'),
    'bright_star': Rate(.6, 'mean number of very bright stars'),
    'spikes': Rate(.6, 'probability that stars have diffraction spikes'),
    'halo': Rate(.4, 'probability that stars have a disc of reflected '
                     'light'),
    'moderate': Rate(0., 'probability that the large galaxies of a scene '
                         'have half-light radii of 3 to 16 pixels, as in a '
                         'binned image, and are three times as many'),
    'any_psf': Rate(0., 'probability that the PSF is of any width from 0.8 '
                        'to 12 pixels, as in undersampled, binned and '
                        'oversampled images'),
    'filling': Rate(0., 'probability that one more galaxy fills the frame or '
                        'exceeds it'),
    'faint_disc': Rate(0., 'mean number of smooth discs of 0.2 to 1.2 sigma '
                           'a pixel in their centres'),
    'star_field': Rate(0., 'probability of one more star in 50 to 3000 '
                           'pixels, in three of ten as a globular cluster'),
    'nucleus': Rate(0., 'probability that a large galaxy has a bright '
                        'nucleus like a point, which is part of it'),
    'bright_knots': Rate(0., 'probability that a galaxy that forms stars has '
                             'one to eight knots as bright as stars, which '
                             'are part of it'),
}

#: Ingredients of an observation.
CONDITIONS = {
    'missing_bands': Rate(.3, 'probability that only some of the bands are '
                              'observed'),
    'gradient': Rate(1., 'factor on the slopes and waves of the sky'),
    'uneven_depth': Rate(.25, 'probability of a step in depth, along each '
                              'axis'),
    'correlated_noise': Rate(.5, 'probability that noise is correlated, as '
                                  'in resampled images'),
    'gap': Rate(.35, 'mean number of chip gaps'),
    'stripes': Rate(.06, 'probability of a comb of lost rows or columns in '
                         'a band'),
    'trail': Rate(.12, 'probability of a satellite trail'),
    'cosmic_ray': Rate(1.5, 'mean number of cosmic rays'),
    'ghost': Rate(.1, 'probability that a very bright star has a ghost, a '
                      'faint ring beside it'),
    'bleed': Rate(.35, 'probability that saturated stars bleed along a '
                       'column'),
    'saturated_mask': Rate(.3, 'probability that saturated pixels are '
                               'masked'),
    'saturated_hole': Rate(.3, 'probability that saturated pixels fall back '
                               'below the limit'),
    'saturated_odd': Rate(0., 'probability that saturated cores are 0, '
                              'negative, flat or hollow, and not masked'),
    'single_band': Rate(0., 'probability that just one band is observed'),
    'smooth_noise': Rate(0., 'probability that noise of one sigma a pixel is '
                             'smooth over 1 to 5 pixels'),
    'source_noise': Rate(0., 'probability that the light of sources has '
                             'photon noise'),
    'counts': Rate(0., 'probability of counted photons, 0.05 to 20 of the '
                       'sky a pixel'),
    'quantised': Rate(0., 'probability of values in steps of 0.3 to 3 sigma'),
    'photographic': Rate(0., 'probability of the characteristic curve and '
                             'the grain of a photographic plate'),
    'stretched': Rate(0., 'probability that pixels went through an asinh, a '
                          'logarithm, a root or a gamma, often in 8 bits'),
    'filled': Rate(0., 'probability that gaps and stripes are filled with a '
                       'number or a smooth sky, and not masked'),
    'edge': Rate(0., 'probability that the frame reaches beyond the edge or '
                     'the corner of the chip'),
    'bad_lines': Rate(0., 'mean number of bad rows and columns, brighter or '
                          'darker by 3 to 100 sigma; they are no objects'),
    'pedestal': Rate(0., 'probability of steps of the sky level between '
                         'amplifiers or chips'),
    'scattered': Rate(0., 'probability of scattered light or cirrus: slopes, '
                          'haloes, arcs, clouds; they are no objects'),
    'negated': Rate(0., 'probability of an image without objects: the '
                        'negative of itself, or noise alone'),
}


def happens(rng, rate):
    """
    Whether an ingredient comes; a rate of 0 draws no random number.

    So seeds give what they gave before there was the ingredient.
    """
    return rate > 0 and rng.random() < rate


def merge_rates(rates, known):
    """Put the caller's rates over the defaults."""
    if not isinstance(rates, Mapping | None):
        msg = f'rates must be a table, got {rates!r}'
        raise ValueError(msg)
    merged = {name: rate.value for name, rate in known.items()}
    for name, value in (rates or {}).items():
        if name not in known:
            msg = f'rates must be some of {sorted(known)}, got {name!r}'
            raise ValueError(msg)
        if not (isinstance(value, Real) and 0 <= value < math.inf):
            msg = (f'rates[{name!r}] must be a number of 0 or more, got '
                   f'{value!r}')
            raise ValueError(msg)
        merged[name] = float(value)
    return merged
