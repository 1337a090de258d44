# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
`Backbone`: a Vision Transformer and the rule that makes its input, and what
the models that stand on one have in common.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch
from safetensors.torch import save as to_bytes
from torch import nn
from torch.nn import functional as F

from astrodino_seg.files import whole_or_not
from astrodino_seg.image import as_image
from astrodino_seg.inputs.channels import PreprocessSpec
from astrodino_seg.inputs.rules import (
    NoiseUnits,
    planes_from_dict,
    planes_to_dict,
)
from astrodino_seg.models.vit import VisionTransformer
from astrodino_seg.truth import CLASSES

STRIDE = 16                 # pixels of a token that dense heads take
#: Arguments of the transformer unless they are given.
DEFAULT_VIT = {'patch_size': 16, 'dim': 192, 'depth': 6, 'n_heads': 3,
               'pos_embed': 'none', 'rope': True, 'n_registers': 2}


class Backbone(nn.Module):
    """
    A Vision Transformer and the rule that makes its input.

    Parameters
    ----------
    vit : `~astrodino_seg.models.vit.VisionTransformer`
        The network.
    planes : callable
        From an `~astrodino_seg.Image` to (plane, y, x) float32: one of
        `~astrodino_seg.inputs.rules`, or any other with an ``n_planes``.
    name : str, optional
        Where the weights come from.
    provenance : dict, optional
        What else is known of that.

    Raises
    ------
    ValueError
        If the network needs another number of planes.
    """

    #: Name and version of the file format.
    FORMAT = 'astrodino_seg/backbone-1'

    def __init__(self, vit, planes, name='', provenance=None):
        super().__init__()
        n_planes = getattr(planes, 'n_planes', None)
        if n_planes != vit.in_channels:
            msg = (f'planes: these weights need {vit.in_channels} planes, '
                   f'{planes!r} makes {n_planes}')
            raise ValueError(msg)
        self.vit, self.planes, self.name = vit, planes, name
        self.provenance = dict(provenance or {})

    @classmethod
    def from_spec(cls, *, vit=None, planes=None, preprocess=None, name='',
                  provenance=None):
        """
        A backbone of random weights, as recipes and files describe it.

        Parameters
        ----------
        vit : dict, optional
            Arguments of `~astrodino_seg.models.vit.VisionTransformer` that
            differ from those of the bundled one.
        planes : dict, optional
            The rule for the input, as of
            `~astrodino_seg.inputs.rules.planes_to_dict`.
        preprocess : dict, optional
            Arguments of `~astrodino_seg.inputs.PreprocessSpec`, if
            the input is that of `~astrodino_seg.inputs.rules.NoiseUnits`.
        name, provenance
            As of `Backbone`.

        Returns
        -------
        backbone : `Backbone`
            In training mode.
        """
        rule = (NoiseUnits(PreprocessSpec(**(preprocess or {})))
                if planes is None else planes_from_dict(planes))
        network = VisionTransformer(**{
            **DEFAULT_VIT, 'in_channels': rule.n_planes, **(vit or {})})
        return cls(network, rule, name, provenance)

    @property
    def spec(self):
        """Arguments of `from_spec`, a dict."""
        vit = {k: v for k, v in self.vit.spec.items() if k != 'in_channels'}
        return {'vit': vit, 'planes': planes_to_dict(self.planes)}

    @property
    def preprocess(self):
        """
        How the background and the noise are measured, a
        `~astrodino_seg.inputs.PreprocessSpec`.
        """
        return getattr(self.planes, 'spec', None) or PreprocessSpec()

    def input(self, data, *, size=None):
        """
        Make the network's input from an image.

        Parameters
        ----------
        data : image-like
            What `~astrodino_seg.as_image` takes; any number of bands.
        size : int or tuple of int, optional
            Rows and columns to resample the planes to, one number for both;
            those of the image if `None`. They are rounded to multiples of the
            patch size.

        Returns
        -------
        x : `~torch.Tensor`
            (1, plane, rows, columns) float32.

        Raises
        ------
        ValueError
            If ``size`` is not positive.
        """
        x = torch.from_numpy(self.planes(as_image(data)))[None]
        return to_patches(x, check_size(size), self.vit.patch_size)

    def forward(self, x):
        """`~astrodino_seg.models.vit.Features` of planes (B, C, H, W)."""
        return self.vit.forward_features(x)

    def tokens(self, x):
        """
        Patch tokens on the grid that dense heads take.

        Patches that divide 16 pixels are averaged. For others (14, 12) the
        image is first resampled, so that a patch covers 16 of its pixels.

        Parameters
        ----------
        x : `~torch.Tensor`
            (B, plane, H, W), sides multiples of 16.

        Returns
        -------
        tokens : `~torch.Tensor`
            (B, dim, H/16, W/16).
        """
        patch = self.vit.patch_size
        if STRIDE % patch:
            x = resample(x, [n // STRIDE * patch for n in x.shape[-2:]])
            return self.vit.forward_features(x).patches[-1]
        tokens = self.vit.forward_features(x).patches[-1]
        return F.avg_pool2d(tokens, STRIDE // patch) if patch < STRIDE else (
            tokens)

    def save(self, path, *, half=False):
        """
        Write the weights, the spec and the provenance to one file.

        Parameters
        ----------
        path : path-like
            The safetensors file. It appears whole or not at all.
        half : bool, optional
            Whether to write the weights as float16.
        """
        write_weights(path, self, half=half)


class DenseModel(nn.Module, ABC):
    """
    What stands on a `Backbone`, whose ``vit`` it has, and says something of
    every pixel. ``provenance`` is a dict, ``totals`` are
    `~astrodino_seg.models.decision.Totals` or `None`; ``in_bfloat16`` tells
    whether the network may run in bfloat16.
    """

    in_bfloat16 = is_fused = False
    #: What a pixel can be; objects are of one of these but the first.
    classes = CLASSES

    def __init__(self, backbone, provenance=None):
        super().__init__()
        # no part of its own: what is in files are the names of the vit
        object.__setattr__(self, 'backbone', backbone)
        self.vit = backbone.vit
        self.provenance = dict(provenance or {})
        self.totals = None

    def _copy_backbone(self, backbone):
        """This model, in evaluation mode, with the weights of a backbone."""
        self.vit.load_state_dict(backbone.vit.state_dict())
        return self.eval()

    @property
    def planes(self):
        """The rule for the input."""
        return self.backbone.planes

    @property
    def preprocess(self):
        """As of `Backbone.preprocess`."""
        return self.backbone.preprocess

    def save(self, path, *, half=False, backbone=None):
        """
        Write the weights, the spec and the provenance to one file.

        Parameters
        ----------
        path : path-like
            The safetensors file. It appears whole or not at all.
        half : bool, optional
            Whether to store float16, in half the space.
        backbone : str, optional
            The name of the bundled backbone that this one is. The file then
            holds the head alone, and cannot be read with a backbone of other
            weights.

        Raises
        ------
        ValueError
            If the batch norms are folded.
        """
        if self.is_fused:
            msg = 'a fused model cannot be saved: its batch norms are gone'
            raise ValueError(msg)
        write_weights(path, self, half=half, backbone=backbone)

    @abstractmethod
    def binning(self, channels):
        """
        By how many pixels, in x and in y, an image of ``channels`` (C, y, x)
        is binned before the network sees it.
        """

    @abstractmethod
    def fused(self):
        """This model for inference only, as fast as it can be."""

    def run_in(self, bfloat16):
        """Whether the network runs in bfloat16 from now on."""
        self.in_bfloat16 = bfloat16


def check_size(size):
    """Rows and columns of the input, or `None`, from one or two int."""
    if size is None:
        return None
    both = np.atleast_1d(size)
    if both.shape not in ((1,), (2,)) or both.dtype.kind not in 'iu' or (
            both.min() < 1):
        msg = f'size must be one or two positive int, got {size!r}'
        raise ValueError(msg)
    return tuple(np.broadcast_to(both, 2).tolist())


def to_patches(x, size, patch):
    """(B, C, H, W) resampled to a size, or to its own, in whole patches."""
    size = x.shape[-2:] if size is None else size
    return resample(x, [max(round(n / patch), 1) * patch for n in size])


def resample(x, size):
    """Resample (B, C, H, W), without aliasing, unless it has the size."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, size=tuple(size), mode='bilinear',
                         align_corners=False, antialias=True)


def digest(module):
    """Hexadecimal sha256 of the names and values of a network's weights."""
    content = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        content.update(key.encode())
        value = value.detach().cpu() + 0        # -0 is 0
        content.update(value.contiguous().view(-1).view(torch.uint8).numpy())
    return content.hexdigest()


def write_weights(path, model, *, half=False, backbone=None):
    """
    Write a model's weights, and as JSON its spec and provenance, to one file:
    as float16 if ``half``, and without those of the bundled backbone that is
    named.
    """
    metadata = {'format': model.FORMAT, 'spec': json.dumps(model.spec),
                'provenance': json.dumps(model.provenance)}
    if backbone is not None:
        metadata.update(backbone=backbone, sha256=digest(model.vit))
    tensors = {k: (v.half() if half and v.is_floating_point() else v
                   ).contiguous()
               for k, v in model.state_dict().items()
               if backbone is None or not k.startswith('vit.')}
    with whole_or_not(path) as part:
        part.write_bytes(to_bytes(tensors, metadata))


@contextmanager
def side_by_side(model, device):
    """
    What runs the network in threads of one core each: many for each of its
    short steps would wait for one another, and for other programs.
    """
    kind, n_threads = torch.device(device).type, torch.get_num_threads()

    def run(function, *args):
        with torch.inference_mode(), torch.autocast(
                kind, torch.bfloat16, enabled=model.in_bfloat16):
            return function(*args)

    try:
        with ThreadPoolExecutor(n_threads if kind == 'cpu' else 1,
                                initializer=torch.set_num_threads,
                                initargs=(1,)) as pool:
            yield lambda function, *args: pool.submit(run, function, *args)
    finally:                    # of threads that are yet to come
        torch.set_num_threads(n_threads)


def has_bfloat16(device):
    """Whether a network runs in bfloat16 unless it is told otherwise."""
    test = getattr(torch.cpu, '_is_avx512_bf16_supported', bool)
    return torch.device(device).type == 'cpu' and test()
