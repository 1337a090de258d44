# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Whether an image is like those that a model copes with.

A few numbers of what is at hand after a segmentation, the signs, none of which
depends on how the labels are drawn, are compared with those of images of which
the labels are good. The further they are from these, the likelier the labels
are bad: a logistic function of the distances, whose weights are not negative
and belong to the model, as `benchmarks/trust/lost.py` fits them.
"""

import warnings

import numpy as np

from astrodino_seg.errors import OutOfDomainWarning
from astrodino_seg.predict.decode import STAR
from astrodino_seg.predict.merge import gather

#: What is said where a sign is lower, and where it is higher, than usual.
SIGNS = {
    'classes': ('it is uncertain what the objects are', ''),
    'real': ('', 'it is uncertain whether there are objects'),
    'same': ('', 'the grouping is uncertain overall'),
    'heat': ('it is uncertain where the objects are', ''),
    'faint': ('hardly anything is faint', 'it is uncertain where objects are'),
    'crowd': ('hardly any objects are found', 'it is crowded'),
    'stars': ('there are hardly any stars', 'it is crowded with stars'),
    'rough': ('light or noise is smooth over many pixels', ''),
    'correlation': ('', 'the noise is correlated over many pixels'),
    'equal': ('', 'many pixels are equal to their neighbours'),
    'negative': ('', 'many pixels are far below the sky'),
    'uneven': ('', 'the noise differs much from place to place'),
    'one_way': ('', 'its pixels vary in one direction, as in a spectrum or '
                    'stripes'),
    'one_way_wide': ('', 'its light varies in one direction, as in a spectrum '
                         'or stripes'),
    'structure': ('', 'there is structure everywhere, as in a picture of '
                      'something else')}
#: Of fewer valid pixels nothing is said.
LEAST_PIXELS = 2048
#: Pixels of each level that are looked at, about: in rows that are so far
#: apart.
ENOUGH = 2**18
#: The largest distance from what is usual, in standard deviations.
FARTHEST = 6.0
#: Of the S/N of a pixel that is far below the sky.
BELOW = -5.0


def signs_of(levels, weighed):
    """
    The signs, from pixels, seeds and pairs, but for ``correlation`` and
    ``uneven``: NaN where one cannot be told; `None` of too few pixels.

    ``weighed`` is what `~astrodino_seg.predict.decode.weigh` gives.
    """
    first = _Rows(levels[0])
    if (levels[0].channels[-1] > 0).sum() < LEAST_PIXELS:
        return None
    found, real, same = weighed
    heat, classes = gather(levels, 'heat'), gather(levels, 'classes')
    is_real = real > 0.5
    both = is_real[found.i] & is_real[found.j]
    area = np.count_nonzero(levels[0].channels[-1] > 0) * levels[0].factor**2
    sn = np.sinh(first.here)
    scatter, step = _scatter(sn), _scatter(first.along) / 2**0.5
    wide = _Rows(levels[min(2, len(levels) - 1)])
    return {
        'classes': _mean(classes[is_real].max(axis=1, initial=0)),
        'real': _mean((real > 0.2) & (real < 0.9)),
        'same': _mean((same[both] > 0.2) & (same[both] < 0.8)),
        'heat': _mean(heat[is_real]),
        'faint': _mean(heat < 0.5),
        'crowd': np.log10(1e4 * is_real.sum() / area + 0.1),
        'stars': _mean(classes[is_real, STAR]),
        'rough': np.log10((step + 0.01) / (scatter + 0.01)),
        'equal': np.mean(first.along == 0),
        'negative': np.log10(np.mean(sn < BELOW) + 1e-5),
        'one_way': first.one_way()[0], 'one_way_wide': wide.one_way()[0],
        'structure': np.log10(wide.one_way()[1] + 0.01)}


class _Rows:
    """Pairs of rows of a level: valid pixels, and those beside and below."""

    def __init__(self, level):
        channels = level.channels
        apart = max(int(channels[0].size / ENOUGH), 1)
        above, beside, below, across = (
            (slice(y, y - 1 or None, apart), slice(x, x - 1 or None))
            for y in (0, 1) for x in (0, 1))
        valid = channels[-1] > 0
        valid = (valid[above] & valid[beside] & valid[below]
                 & valid[across])
        plane = channels[0]
        self.here = plane[above][valid]
        self.along = np.sinh(plane[beside][valid]) - np.sinh(self.here)
        # along the diagonals: of white noise, these do not depend on each
        # other
        self.dx = plane[across][valid] - self.here
        self.dy = plane[beside][valid] - plane[below][valid]

    def one_way(self):
        """How much gradients have one direction, and how large they are."""
        if len(self.dx) == 0:
            return np.nan, np.nan
        xx, yy, xy = (float(np.mean(a * b)) for a, b in (
            (self.dx, self.dx), (self.dy, self.dy), (self.dx, self.dy)))
        return np.hypot(xx - yy, 2 * xy) / (xx + yy + 1e-9), xx + yy


def _mean(values):
    return float(np.mean(values)) if len(values) else np.nan


def _scatter(values):
    """Standard deviation of the values that are not outliers."""
    if len(values) < 2:
        return np.nan
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


def of_noise(normalised):
    """The signs that the noise tells, of a `Normalised`."""
    sigma = [values[np.isfinite(values)] for values in (
        one[::8, ::8] for one in normalised.noise)]
    uneven = [np.log10(np.divide(*np.quantile(values, [.95, .05])))
              for values in sigma if len(values)]
    return {'correlation': np.log10(normalised.correlation[:, -1].max()),
            'uneven': max(uneven, default=np.nan)}


def tell_lost(signs, normalised, model):
    """
    Warn of an image that is unlike others, and give the `reason`; `None` if
    the model has no domain.
    """
    if signs is None:
        return None
    lost = reason({**signs, **of_noise(normalised)},
                  model.calibration['domain'])
    if lost:
        msg = (f'the image is unlike those that the model copes with, and '
               f'its labels may be wrong: {lost}')
        warnings.warn(msg, OutOfDomainWarning)
    return lost


def distances(signs, centre, scale):
    """
    How far each of `SIGNS` is below (n,) ``centre`` and above it, in units of
    (n,) ``scale``: (2, n); 0 where it is not known.
    """
    values = np.array([signs.get(name, np.nan) for name in SIGNS], float)
    far = np.nan_to_num((values - centre) / scale).clip(-FARTHEST, FARTHEST)
    return np.maximum([-far, far], 0)


def reason(signs, domain):
    """
    Why an image is unlike those that a model copes with, in words; empty if it
    is not. ``domain`` is that of a
    `~astrodino_seg.models.decision.Calibration`.
    """
    centre, scale, *weights = np.array(
        [domain['signs'].get(name, (0, np.inf, 0, 0)) for name in SIGNS]).T
    part = distances(signs, centre, scale) * weights
    if part.sum() <= domain['limit']:
        return ''
    said = [(part[side, k], words[side])
            for k, words in enumerate(SIGNS.values()) for side in (0, 1)]
    said = sorted((one for one in said if one[1]), reverse=True)
    most = said[0][0]
    return ', and '.join(words for value, words in said[:2]
                         if value > 0.5 * most)
