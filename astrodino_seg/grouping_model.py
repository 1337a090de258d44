# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The model that tells objects apart: preprocessing, backbone and grouping head.
"""

import torch
from torch import nn

from astrodino_seg.convolutions import ConvBlock
from astrodino_seg.encoder import DEFAULT_VIT, dense_tokens
from astrodino_seg.heads import GroupingHead
from astrodino_seg.pairs import PairScore, n_features
from astrodino_seg.planes import (
    NoiseUnits,
    WithNoiseUnits,
    planes_from_dict,
    planes_to_dict,
)
from astrodino_seg.preprocess import PreprocessSpec
from astrodino_seg.vit import VisionTransformer
from astrodino_seg.weights import write_weights

__all__ = ['FORMAT', 'Model']

#: Name and version of the file format of a `Model`.
FORMAT = 'astrodino_seg/1'


class Model(nn.Module):
    """
    Preprocessing spec, backbone and grouping head.

    The Vision Transformer sees the channels in noise units that the head
    sees; or planes of its own, which follow these in the input.

    Parameters
    ----------
    vit : dict, optional
        Arguments of `~astrodino_seg.vit.VisionTransformer` but
        ``in_channels``.
    head : dict, optional
        Arguments of `~astrodino_seg.heads.GroupingHead` but ``in_channels``
        and ``token_dim``.
    preprocess : dict, optional
        Arguments of `~astrodino_seg.preprocess.PreprocessSpec`.
    planes : dict, optional
        The rule for planes of the ViT's own, as of
        `~astrodino_seg.planes.planes_to_dict`.
    provenance : dict, optional
        Where the weights come from, and thresholds measured with them.

    Attributes
    ----------
    in_bfloat16 : bool
        Whether `~astrodino_seg.inference.predict` runs the network in
        bfloat16; `False` unless it is set.
    """

    in_bfloat16 = False

    def __init__(self, *, vit=None, head=None, preprocess=None, planes=None,
                 provenance=None):
        super().__init__()
        self.preprocess = PreprocessSpec(**(preprocess or {}))
        self.vit_planes = None if planes is None else planes_from_dict(planes)
        n_channels = self.preprocess.n_channels
        self.spec = {'vit': {**DEFAULT_VIT, **(vit or {})},
                     'head': dict(head or {}),
                     'preprocess': self.preprocess.to_dict()}
        if planes is not None:
            self.spec['planes'] = dict(planes)
        self.provenance = dict(provenance or {})
        n_planes = getattr(self.vit_planes, 'n_planes', n_channels)
        self.vit = VisionTransformer(in_channels=n_planes, **self.spec['vit'])
        self.head = GroupingHead(in_channels=n_channels,
                                 token_dim=self.vit.dim, **self.spec['head'])
        self.pairs = PairScore(n_features(self.head.n_descriptor, n_channels))

    @classmethod
    def from_backbone(cls, backbone, head=None, *, preprocess=None):
        """
        Put a new grouping head on a backbone, which is copied.

        Parameters
        ----------
        backbone : `~astrodino_seg.backbones.Backbone`
            Any, of any patch size.
        head : dict, optional
            As of `Model`.
        preprocess : dict, optional
            As of `Model`, for a backbone with planes of its own. One of noise
            units has these already.

        Returns
        -------
        model : `Model`
            To be trained by `~astrodino_seg.train.fit_model` and
            `~astrodino_seg.train.pairs.fit_pairs`.

        Raises
        ------
        TypeError
            If the backbone has a rule for its planes that is not one of
            `~astrodino_seg.backbones`.
        ValueError
            If ``preprocess`` is given and the backbone has noise units.
        """
        planes = None
        if not isinstance(backbone.planes, NoiseUnits):
            planes = planes_to_dict(backbone.planes)
        elif preprocess is None:
            preprocess = backbone.planes.spec.to_dict()
        else:
            msg = (f'preprocess is that of the backbone {backbone.name!r}, '
                   f'got {preprocess!r}')
            raise ValueError(msg)
        vit = {k: v for k, v in backbone.vit.spec.items()
               if k != 'in_channels'}
        model = cls(vit=vit, head=head, preprocess=preprocess, planes=planes,
                    provenance={'backbone': {'file': backbone.name,
                                             **backbone.provenance}})
        model.vit.load_state_dict(backbone.vit.state_dict())
        return model.eval()

    @property
    def planes(self):
        """
        The rule for the input, `~astrodino_seg.backbones.NoiseUnits` or
        `~astrodino_seg.planes.WithNoiseUnits`.
        """
        if self.vit_planes is None:
            return NoiseUnits(self.preprocess)
        return WithNoiseUnits(self.vit_planes, self.preprocess)

    def forward(self, x):
        """
        Predict the dense maps of a batch of ``planes`` (B, C, H, W).

        Returns
        -------
        maps : `~astrodino_seg.heads.DenseMaps`
            The maps.
        """
        return self.head(x, self.tokens(x))

    def tokens(self, x):
        """The backbone's last features, (B, dim, H/16, W/16)."""
        return dense_tokens(self.vit, x[:, -self.vit.in_channels:])

    def fused(self):
        """
        Fold the batch norms into the convolutions, for inference only.

        Returns
        -------
        model : `Model`
            This model, in evaluation mode.
        """
        self.eval()
        for block in self.modules():
            if isinstance(block, ConvBlock) and isinstance(
                    block[1], nn.BatchNorm2d):
                block[0] = torch.nn.utils.fusion.fuse_conv_bn_eval(
                    block[0], block[1])
                block[1] = nn.Identity()
        return self.requires_grad_(False).to(
            memory_format=torch.channels_last)

    def save(self, path, *, half=False):
        """
        Write the weights, the spec and the provenance to one file.

        Parameters
        ----------
        path : path-like
            The safetensors file. It appears whole or not at all.
        half : bool, optional
            Whether to store float16, in half the space. `load_model`
            returns float32 all the same.
        """
        if any(isinstance(block, ConvBlock) and isinstance(
                block[1], nn.Identity) for block in self.modules()):
            msg = 'a fused model cannot be saved: its batch norms are gone'
            raise ValueError(msg)
        write_weights(path, self, FORMAT, half=half)
