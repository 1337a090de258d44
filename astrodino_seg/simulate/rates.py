# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What scenes and observations are made of, and how much of each.

These two tables are all there is to switch: a rate of 0 leaves an ingredient
out. `~astrodino_seg.simulate.make_scene` takes the names of `CONTENT` and
`~astrodino_seg.simulate.observe` those of `CONDITIONS`, in their ``rates``.
"""

import math
from numbers import Real
from typing import NamedTuple

__all__ = ['CONDITIONS', 'CONTENT', 'Rate', 'merge_rates']


class Rate(NamedTuple):
    """
    How often an ingredient comes.

    Attributes
    ----------
    value : float
        The default.
    what : str
        What the ingredient is, and what its rate counts.
    """

    value: float
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
    'any_psf': Rate(0., 'probability that the PSF is of any width from 0.8 '
                        'to 12 pixels, as in undersampled, binned and '
                        'oversampled images'),
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
}


def merge_rates(rates, known):
    """
    Put the caller's rates over the defaults.

    Parameters
    ----------
    rates : dict of float or `None`
        Names of ``known``, each with a rate of 0 or more.
    known : dict of `Rate`
        `CONTENT` or `CONDITIONS`.

    Returns
    -------
    merged : dict of float
        One for each name of ``known``.

    Raises
    ------
    ValueError
        If a name is unknown, or a rate is not a number, negative or not
        finite.
    """
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
