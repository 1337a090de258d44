# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Semantic heads: the class of each pixel from the patch tokens of any backbone.
The two plain heads of DINOv2 (Oquab et al. 2023, arXiv:2304.07193, section
7.4). ``linear``: batch norm and a 1x1 convolution on the patch tokens of the
last layer, upsampled to the pixels. ``ms``: the same on those of the last four
layers, of the image enlarged by several scales, over which the probabilities
are averaged.
"""

import re

import torch
from torch import nn
from torch.nn import functional as F

from astrodino_seg.inputs.channels import oversampling
from astrodino_seg.models.backbone import Backbone, DenseModel, to_patches
from astrodino_seg.truth import CLASSES

#: For each head, of how many of the last layers it reads the tokens, and the
#: scales of the image.
HEADS = {'linear': (1, (1.0,)), 'ms': (4, (1.0, 1.5, 2.0))}


class PixelHead(nn.Sequential):
    """Batch norm and a 1x1 convolution: one linear layer on normed tokens."""

    def __init__(self, dim, n_classes):
        super().__init__(nn.BatchNorm2d(dim), nn.Conv2d(dim, n_classes, 1))


def at_pixels(scores, shape):
    """Scores (B, class, rows, columns) of patches, at their pixels."""
    return F.interpolate(scores, size=tuple(shape), mode='bilinear',
                         align_corners=False)


class SemanticModel(DenseModel):
    """
    A backbone and a semantic head.

    Parameters
    ----------
    vit, planes : dict, optional
        As of `~astrodino_seg.models.Backbone.from_spec`.
    head : dict, optional
        ``kind``, a key of `HEADS`; and ``scales``, where they are not those,
        and ``classes``, where these are not star, galaxy and artifact.
    provenance : dict, optional
        Where the weights come from.

    Raises
    ------
    ValueError
        If the head is unknown or does not fit the transformer, a scale is
        not positive, or classes are not names.
    """

    #: Name and version of the file format.
    FORMAT = 'astrodino_seg/semantic-1'
    save = DenseModel.save      # so that the API page has it

    def __init__(self, *, vit=None, planes=None, head=None, provenance=None):
        super().__init__(Backbone.from_spec(vit=vit, planes=planes),
                         provenance)
        head = {'kind': 'linear', **(head or {})}
        self.n_last, scales, names = _check_head(**head)
        if self.n_last > len(self.vit.blocks):
            msg = (f'head {head["kind"]!r} reads {self.n_last} layers, vit '
                   f'has {len(self.vit.blocks)}')
            raise ValueError(msg)
        self.spec = {**self.backbone.spec, 'head': {
            'kind': head['kind'], 'scales': list(scales)}}
        self.take_classes(names)

    def take_classes(self, names):
        """
        Take classes of objects, of which it then knows nothing yet.

        Parameters
        ----------
        names : sequence of str
            One or more; the sky is none of them.

        Raises
        ------
        ValueError
            If they are not different names of letters, digits and ``_+-.``.
        """
        names = check_classes(names)
        self.classes = (CLASSES[0], *names)
        self.head = PixelHead(self.n_last * self.vit.dim, len(self.classes))
        self.spec['head'].pop('classes', None)
        if self.classes != CLASSES:
            self.spec['head']['classes'] = list(names)

    @classmethod
    def from_backbone(cls, backbone, head='linear', *, scales=None,
                      classes=None):
        """
        Put a head, with random weights, on a backbone, which is copied.

        Parameters
        ----------
        backbone : `~astrodino_seg.models.Backbone`
            Any, of any patch size.
        head : {'linear', 'ms'}, optional
            Which head.
        scales : sequence of float, optional
            Factors by which the image is enlarged, instead of those of
            `HEADS`. The cost is that of ``linear`` times the sum of their
            squares.
        classes : sequence of str, optional
            What objects can be, instead of star, galaxy and artifact.

        Returns
        -------
        model : `SemanticModel`
            To be trained by `~astrodino_seg.train.fit_head`.

        Raises
        ------
        TypeError
            If the backbone has a rule for its planes that is not one of
            ``astrodino_seg.inputs.rules``.
        ValueError
            If the head does not fit.
        """
        table = {'kind': head}
        if scales is not None:
            table['scales'] = list(scales)
        if classes is not None:
            table['classes'] = classes
        return cls(**backbone.spec, head=table, provenance={
            'backbone': backbone.name})._copy_backbone(backbone)

    @property
    def scales(self):
        """Factors by which the image is enlarged."""
        return tuple(self.spec['head']['scales'])

    def binning(self, channels):
        """As many pixels as a blurred image has too many."""
        return oversampling(channels, self.preprocess.softening)

    def tokens(self, x, scale=1.0):
        """
        Patch tokens (B, n_last * dim, rows, columns), the deepest layer last,
        of an image (B, plane, y, x) whose sides are scaled to whole patches.
        """
        x = to_patches(x, [scale * n for n in x.shape[-2:]],
                       self.vit.patch_size)
        return torch.cat(self.vit.forward_features(x, self.n_last).patches,
                         dim=1)

    def forward(self, x, scale=1.0):
        """Logits (B, class, y, x), of the sky first, at a scale."""
        return self.logits(self.tokens(x, scale), x.shape[-2:])

    def logits(self, tokens, shape):
        """Logits (B, class, y, x) of the classes from tokens."""
        return at_pixels(self.head(tokens), shape)

    def probabilities(self, x, factor=1.0):
        """Probabilities (B, class, y, x), the mean over all scales."""
        return sum(self(x, factor * scale).softmax(dim=1)
                   for scale in self.scales) / len(self.scales)

    def fused(self):
        """This model, for inference only."""
        return self.eval().requires_grad_(False)


def check_classes(names):
    """Names of classes of objects as a tuple; raises `ValueError`."""
    found = [names] if isinstance(names, str) else list(names)
    if not found or len({*found, CLASSES[0]}) <= len(found) or not all(
            isinstance(name, str) and re.fullmatch(r'[\w+.-]{1,40}', name)
            for name in found):
        msg = (f'classes must be different names of letters, digits and '
               f'"_+-.", and not {CLASSES[0]!r}, got {names!r}')
        raise ValueError(msg)
    return tuple(found)


def _check_head(*, kind, scales=None, classes=CLASSES[1:]):
    """Number of layers, scales and classes of a head, or `ValueError`."""
    if kind not in HEADS:
        msg = f'head must be one of {sorted(HEADS)}, got {kind!r}'
        raise ValueError(msg)
    n_last, default = HEADS[kind]
    scales = default if scales is None else scales
    if len(scales) == 0 or not all(0 < scale <= 16 for scale in scales):
        msg = f'scales must be one or more in (0, 16], got {scales!r}'
        raise ValueError(msg)
    return n_last, [float(scale) for scale in scales], classes
