# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
`Backbone` and `load_backbone`.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch.nn import functional as F

from astrodino_seg.errors import ModelFileError, require
from astrodino_seg.image import as_image
from astrodino_seg.inputs.rules import (
    NanomaggyRGB,
    NoiseUnits,
    Photographic,
    WithNoiseUnits,
)
from astrodino_seg.models.encoder import dense_tokens
from astrodino_seg.models.foreign_files import read_state
from astrodino_seg.models.foreign_layouts import convert
from astrodino_seg.models.load import (
    BUNDLED_BACKBONE,
    BUNDLED_FILES,
    FORMAT,
    load_any,
)
from astrodino_seg.models.vit import VisionTransformer

__all__ = ['Backbone', 'load_backbone']

#: Names of timm whose weights fit; others of the same shapes may compute
#: something else.
TIMM_NAMES = (r'vit_(small|base)_patch(8|16)_224\.dino',
              r'vit_\w+_patch14(_reg4)?_dinov2(\.lvd142m)?',
              r'vit_\w+_patch16_dinov3(_qkvb)?(\.\w+)?')


@dataclass(frozen=True, eq=False)
class Backbone:
    """
    A Vision Transformer and the rule that makes its input.

    Attributes
    ----------
    vit : `~astrodino_seg.models.vit.VisionTransformer`
        The network, in evaluation mode.
    planes : callable
        From an `~astrodino_seg.Image` to (plane, y, x) float32: one of
        `NoiseUnits`, `Photographic`, `NanomaggyRGB`, or any other with an
        ``n_planes``.
    name : str
        Where the weights come from.
    provenance : dict
        What a file of this package says of them; nothing of others.
    """

    vit: VisionTransformer
    planes: Callable
    name: str
    provenance: dict = field(default_factory=dict)

    def __post_init__(self):
        n_planes = getattr(self.planes, 'n_planes', None)
        if n_planes != self.vit.in_channels:
            msg = (f'planes: these weights need {self.vit.in_channels} '
                   f'planes, {self.planes!r} makes {n_planes}')
            raise ValueError(msg)

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
        size = x.shape[-2:] if size is None else size
        size = (size, size) if np.ndim(size) == 0 else tuple(size)
        if len(size) != 2 or min(size) < 1:
            msg = f'size must be one or two positive int, got {size!r}'
            raise ValueError(msg)
        patch = self.vit.patch_size
        return _resample(x, [max(round(n / patch), 1) * patch for n in size])

    def tokens(self, x):
        """
        Patch tokens on the grid that dense heads take; see
        `~astrodino_seg.models.encoder.dense_tokens`.

        Parameters
        ----------
        x : `~torch.Tensor`
            (B, plane, H, W), sides multiples of 16.

        Returns
        -------
        tokens : `~torch.Tensor`
            (B, dim, H/16, W/16).
        """
        return dense_tokens(self.vit, x)


def _resample(x, size):
    """Resample (B, C, H, W), without aliasing, unless it has the size."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, size=tuple(size), mode='bilinear',
                         align_corners=False, antialias=True)


def load_backbone(name_or_path=None, *, key=None, planes=None):
    """
    Load a backbone.

    Parameters
    ----------
    name_or_path : str or path-like, optional
        * `None`: the bundled one, trained without labels;
        * the name of a bundled encoder or model, ``'backbone_tiny'`` or
          ``'grouping_tiny'``;
        * a file of `~astrodino_seg.Model`,
          `~astrodino_seg.models.semantic.SemanticModel` or
          `~astrodino_seg.models.load.Encoder`;
        * a file of DINO, DINOv2 or DINOv3 as Meta or ``timm`` have it
          (``.pth``, ``.bin``, ``.safetensors``), or a checkpoint of a training
          run with a teacher and a student;
        * ``astrodino.ckpt`` or ``astroclip.ckpt`` of AstroCLIP (Parker et al.
          2024, MNRAS 531, 4990);
        * the name of such a model in ``timm``, which downloads it.
    key : str, optional
        Which part of a checkpoint to read, ``'student'`` for example. By
        default the teacher where there is one. Ignored unless a file of
        others is read.
    planes : callable, optional
        Rule for the input instead of that of the family; see `Backbone`.

    Returns
    -------
    backbone : `Backbone`
        In evaluation mode, on the CPU, in float32.

    Raises
    ------
    FileNotFoundError
        If ``name_or_path`` looks like a path and there is no such file.
    ModelFileError
        If the file cannot be read safely, or a parameter of it is unknown,
        missing or of a wrong shape; all of these are listed.
    ValueError
        If the name is of no family known here, or ``planes`` does not fit.
    ImportError
        If a name is given and ``timm`` cannot be imported.
    OSError
        If ``timm`` cannot download the weights.

    Examples
    --------
    >>> from astrodino_seg.models.backbone import load_backbone
    >>> backbone = load_backbone()
    >>> backbone.vit.patch_size, backbone.planes.n_planes
    (16, 5)
    """
    if name_or_path is None:
        name_or_path = BUNDLED_BACKBONE
    path = Path(name_or_path)
    name = os.fspath(name_or_path)
    if name in BUNDLED_FILES:
        return _own(load_any(name), name, planes)
    if path.is_file():
        if _is_own(path):
            return _own(load_any(path), path.name, planes)
        try:
            return _build(read_state(path, key), planes, path.name)
        except ModelFileError as err:
            msg = f'name_or_path: {name!r}: {err}'
            raise ModelFileError(msg) from err
    if any(re.fullmatch(pattern, name) for pattern in TIMM_NAMES):
        return _from_timm(name, planes)
    if isinstance(name_or_path, Path) or path.suffix in (
            '.pth', '.pt', '.ckpt', '.bin', '.safetensors') or os.sep in name:
        msg = f'name_or_path: no weights file {name!r}'
        raise FileNotFoundError(msg)
    msg = (f'name_or_path: {name!r} is neither a file nor a name of timm for '
           f'a Vision Transformer of DINO, DINOv2 or DINOv3')
    raise ValueError(msg)


def _is_own(path):
    """Whether this package wrote a file."""
    if path.suffix != '.safetensors':
        return False
    try:
        with safe_open(path, 'pt') as f:
            form = (f.metadata() or {}).get('format', '')
    except (SafetensorError, OSError):
        return False
    return form.startswith(FORMAT.split('/')[0])


def _own(model, name, planes):
    """The backbone of a model of this package."""
    own = getattr(model, 'planes', None) or NoiseUnits(model.preprocess)
    if isinstance(own, WithNoiseUnits):
        own = own.planes
    return Backbone(model.vit, planes or own, name, dict(model.provenance))


def _build(state, planes, name):
    """Our transformer with the parameters of others."""
    spec, state, family = convert(state)
    with torch.device('meta'):      # nothing is drawn that is replaced
        vit = VisionTransformer(**spec)
    needed = {k: tuple(v.shape) for k, v in vit.state_dict().items()}
    found = {k: tuple(v.shape) for k, v in state.items()}
    wrong = {
        'unknown parameters': sorted(found.keys() - needed),
        'missing parameters': sorted(needed.keys() - found),
        'parameters of a wrong shape': [
            f'{k} {found[k]} and not {needed[k]}' for k in sorted(needed)
            if k in found and found[k] != needed[k]]}
    if any(wrong.values()):
        msg = '; '.join(f'{what}: {", ".join(keys)}'
                        for what, keys in wrong.items() if keys)
        raise ModelFileError(msg)
    vit.load_state_dict(state, assign=True)
    vit.requires_grad_(True)
    if planes is None:
        planes = NanomaggyRGB() if family == 'astroclip' else Photographic()
    return Backbone(vit.eval(), planes, name)


def _from_timm(name, planes):
    """Weights by their name in timm, with the statistics that it states."""
    timm = require('timm')
    try:
        model = timm.create_model(name, pretrained=True, num_classes=0)
    except Exception as err:    # of any of the libraries that download
        msg = (f'name_or_path: timm cannot provide {name!r} ('
               f'{type(err).__name__}: {" ".join(str(err).split())[:200]}); '
               f'without a network, give the path of a file')
        raise OSError(msg) from err
    config = model.pretrained_cfg
    if planes is None:
        planes = Photographic(tuple(config['mean']), tuple(config['std']))
    return _build(model.state_dict(), planes, name)
