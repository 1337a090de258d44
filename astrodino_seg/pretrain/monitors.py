# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Signs that the student has found a trivial answer, told in words.

There are two (Caron et al. 2021, `arXiv:2104.14294
<https://arxiv.org/abs/2104.14294>`_, section 5.3): one prototype for all
images, where the teacher's entropy goes to 0, and all prototypes alike for
all, where it goes to its largest value. In both the teacher's answer holds no
information on the image, and features do not differ from image to image.
"""

import math
import warnings

import torch
from torch.nn import functional as F

from astrodino_seg.errors import CollapseWarning

__all__ = ['CollapseMonitor', 'distribution_state', 'feature_spread']

MIN_SPREAD = 0.02       # of unit features, where 1 fills all directions
MIN_INFORMATION = 0.02  # of what the batch could hold


@torch.no_grad()
def distribution_state(teacher, cross_entropy):
    """
    Entropy of the teacher, its distance from the student, and information.

    Parameters
    ----------
    teacher : `~torch.Tensor`
        (T, B, K) probabilities.
    cross_entropy : `~torch.Tensor`
        The loss of DINO, of the same batch.

    Returns
    -------
    state : dict of str to `~torch.Tensor`
        ``teacher_entropy``, the mean entropy in units of log K; ``kl``, the
        Kullback-Leibler divergence of the student from the teacher in nats;
        ``information``, that of an answer from the mean answer, in units of
        the largest possible in this batch.
    """
    log_p = teacher.clamp(min=1e-30).log()
    entropy = -(teacher * log_p).sum(dim=-1).mean()
    mean = teacher.mean(dim=1, keepdim=True)
    of_mean = -(mean * mean.clamp(min=1e-30).log()).sum(dim=-1).mean()
    _, n_images, n_prototypes = teacher.shape
    limit = math.log(max(min(n_images, n_prototypes), 2))
    return {'teacher_entropy': entropy / math.log(n_prototypes),
            'kl': cross_entropy.detach() - entropy,
            'information': (of_mean - entropy) / limit}


@torch.no_grad()
def feature_spread(features):
    """
    How much unit features differ from image to image.

    Parameters
    ----------
    features : `~torch.Tensor`
        (T, B, D).

    Returns
    -------
    spread : `~torch.Tensor`
        The standard deviation over the batch of each component of the unit
        vectors, times the root of D: 0 if all are equal, near 1 if they fill
        all directions (Chen & He 2021, `arXiv:2011.10566
        <https://arxiv.org/abs/2011.10566>`_, section 4.1).
    """
    unit = F.normalize(features, dim=-1)
    variance = unit.var(dim=1, correction=0).sum(dim=-1)        # (T,)
    return variance.mean().sqrt()


class CollapseMonitor:
    """
    Warn, once for each sign of a collapse.

    Parameters
    ----------
    warmup : int
        Steps before the first warning: at first all features are alike.
    """

    def __init__(self, warmup):
        self.warmup = warmup
        self._told = set()

    def __call__(self, step, values):
        """
        Look at what was logged.

        Parameters
        ----------
        step : int
            The step.
        values : dict of str to float
            Means over some steps, ``feature_std`` and others of
            `distribution_state`.

        Warns
        -----
        CollapseWarning
            If the values look like a collapse.
        """
        if step < self.warmup:
            return
        for sign, text in _signs(values):
            if sign not in self._told:
                self._told.add(sign)
                warnings.warn(f'step {step}: {text}', CollapseWarning)


def _signs(values):
    """Yield the name of each sign of collapse, and what it means."""
    spread = values['feature_std']
    if not spread >= MIN_SPREAD:
        yield 'features', (
            f'the features are the same for all images (spread {spread:.2g} '
            f'of 1): the training has collapsed. Lower the peak rate or the '
            f"teacher's temperature, or raise the teacher's momentum")
    if 'information' in values and not (
            values['information'] >= MIN_INFORMATION):
        entropy = values['teacher_entropy']
        if entropy > 0.5:
            yield 'uniform', (
                f'the teacher gives all prototypes alike to every image '
                f'(entropy {entropy:.2f} of its largest value): lower the '
                f"teacher's temperature")
        else:
            yield 'single', (
                f'the teacher gives the same prototypes to every image '
                f'(entropy {entropy:.2f} of its largest value): centre with '
                f"'sinkhorn', or raise the teacher's temperature")
