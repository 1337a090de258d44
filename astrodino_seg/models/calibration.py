# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Maps that make a model's probabilities come true.

A network may be too sure of itself, or not sure enough. A temperature for the
classes (`Guo et al. 2017 <https://arxiv.org/abs/1706.04599>`_) and a straight
line for the log-odds of yes and no (Platt 1999) repair both. They are fitted
by ``benchmarks/calibration/calibration.py`` and are a part of the model,
`~astrodino_seg.Model.calibration`; a model without is used as it is.
"""

from dataclasses import dataclass, fields, replace
from numbers import Real

import numpy as np

#: A grouping decision counts as at most so certain, or so uncertain by one
#: less this: where nothing was compared it has probability one.
DECISION_LIMIT = 0.99


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What is done to the probabilities of a model."""

    #: The log probabilities of the classes of an object are divided by this.
    class_temperature: float = 1.0
    #: Weights of the log-odds of an object's weakest grouping decision and of
    #: its leading seed, and a bias: their sum is the log-odds that the label
    #: is one object, neither cut nor merged. `None` leaves the probability of
    #: the weakest decision as it is.
    confidence: tuple | None = None
    #: How they were fitted, to be read by people.
    fit: dict | None = None

    def __post_init__(self):
        if not _is_number(self.class_temperature) or (
                self.class_temperature <= 0):
            _refuse('class_temperature', 'a positive number',
                    self.class_temperature)
        values = self.confidence
        if values is not None and not (
                isinstance(values, list | tuple) and len(values) == 3
                and all(map(_is_number, values))):
            _refuse('confidence', 'three finite numbers or None', values)

    def class_probabilities(self, probabilities):
        """
        Calibrated probabilities of classes (..., n), which add up to 1; the
        array itself where the temperature is 1.
        """
        if self.class_temperature == 1:
            return probabilities
        logits = np.log(np.clip(probabilities, 1e-30, 1, dtype=float))
        logits -= logits.max(axis=-1, keepdims=True)
        out = np.exp(logits / self.class_temperature)
        out /= out.sum(axis=-1, keepdims=True)
        return out.astype(probabilities.dtype)

    def confidences(self, decision, heat):
        """
        The probability (n,) that labels are one object each, from those that
        the weakest decision about each is right and of its leading seed.
        """
        if self.confidence is None:
            return decision
        *weights, bias = self.confidence
        total = features_of(decision, heat) @ np.array(weights, float) + bias
        return 1 / (1 + np.exp(-np.clip(total, -50, 50)))

    def rate(self, grouping, heat):
        """
        The labels, a `~astrodino_seg.predict.instances.Grouping`, with
        calibrated confidence.
        """
        return replace(grouping, confidence=self.confidences(
            grouping.confidence, heat))


def log_odds(probability, limit=1 - 1e-7):
    """Log-odds of probabilities, of at most ``limit``, of at least 1 less."""
    p = np.clip(np.asarray(probability, float), 1 - limit, limit)
    return np.log(p) - np.log1p(-p)


def features_of(decision, heat):
    """(n, 2) log-odds that `Calibration.confidences` is made of."""
    return np.stack([log_odds(decision, DECISION_LIMIT), log_odds(heat)],
                    axis=-1)


def read_calibration(values):
    """
    The `Calibration` of a dict; one that changes nothing, to the last bit, of
    `None`. Raises `ValueError` at keys and values that are not known.
    """
    if values is None:
        return Calibration()
    if isinstance(values, dict):            # of files of before
        values = {k: v for k, v in values.items() if k != 'share_power'}
    names = [field.name for field in fields(Calibration)]
    if not isinstance(values, dict) or not set(values) <= set(names):
        msg = (f'calibration of a model must be a dict with keys of {names}, '
               f'got {values!r}')
        raise ValueError(msg)
    return Calibration(**values)


def _is_number(value):
    return (isinstance(value, Real) and not isinstance(value, bool)
            and bool(np.isfinite(value)))


def _refuse(name, wanted, value):
    msg = f'{name} of a calibration must be {wanted}, got {value!r}'
    raise ValueError(msg)
