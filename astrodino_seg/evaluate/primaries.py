# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
How the large galaxies of one image fare, and what lies on them.
"""

import numpy as np
from scipy.sparse import coo_array

from astrodino_seg.evaluate.matching import Overlap, check_shape

__all__ = ['measure_primaries']

MIN_FRAGMENT_FLUX = 0.02
OK_IOU = 0.5
OK_CONTAMINATION = 0.1
SEPARATE_IOU = 0.3
SEPARATE_PIXELS = 25


def measure_primaries(truth, predicted, flux, primaries, companions=()):
    """
    How large galaxies fare: kept whole, and kept apart from others.

    A fragment of a galaxy is a label that holds at least 2% of its true flux
    inside its truth region, unless another true object owns most of the
    label's pixels or matches it with IoU > 0.3.

    Parameters
    ----------
    truth, predicted : `~numpy.ndarray`
        (y, x) labels.
    flux : `~numpy.ndarray`
        (y, x) true flux of the owner of each pixel.
    primaries : sequence of int
        Truth labels of the large galaxies.
    companions : sequence of int, optional
        Truth labels of objects whose peak lies on a primary that is not
        itself.

    Returns
    -------
    rows : list of dict
        One a primary: ``label``, ``n_fragments``, ``best`` (the label with
        most of its flux, or 0), its ``flux_share`` and ``iou``,
        ``contamination`` (share of the light in that label that belongs to
        others), ``ok`` (one fragment, IoU > 0.5, contamination < 0.1) and
        ``lost`` (no fragment).
    separated : list of bool
        One a companion of at least 25 pixels: whether it has a label of its
        own (IoU > 0.3, and not the best one of another primary).

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    truth, flux = np.asarray(truth), np.asarray(flux, float)
    # an object may have no pixel left, where all of them are void
    overlap = Overlap(truth, predicted, max([0, *primaries, *companions]))
    check_shape(truth, flux=flux)
    t, p, n, iou = overlap.pairs()
    own = iou > SEPARATE_IOU
    claimed = own | (n > 0.5 * overlap.area_p[p])
    light = coo_array((np.where(truth < 0, 0, flux).ravel(),
                       (overlap.t, overlap.p)),
                      shape=overlap.counts.shape).tocsr()
    rows = []
    for k in primaries:
        of_others = p[claimed & (t != k)]
        row = _one_primary(int(k), light, of_others)
        row['iou'] = float(iou[(t == k) & (p == row['best'])].sum())
        row['ok'] = (row['n_fragments'] == 1 and row['iou'] > OK_IOU
                     and row['contamination'] < OK_CONTAMINATION)
        rows.append(row)
    separated = []
    for k in companions:
        if overlap.area_t[k] >= SEPARATE_PIXELS:
            taken = [row['best'] for row in rows if row['label'] != k]
            separated.append(not np.isin(p[own & (t == k)], taken).all())
    return rows, separated


def _one_primary(k, light, of_others):
    flux = light[[k]].toarray()[0]
    share = flux / max(flux.sum(), 1e-30)
    share[0] = 0
    fragments = np.setdiff1d(np.flatnonzero(share >= MIN_FRAGMENT_FLUX),
                             of_others)
    best = int(share.argmax())         # 0 if all of it is sky
    within = light[:, [best]].toarray()[1:, 0].sum()
    return {'label': k, 'best': best, 'n_fragments': len(fragments),
            'flux_share': float(share[best]),
            'contamination': float(1 - flux[best] / within) if best else 0.0,
            'lost': len(fragments) == 0}
