# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The model that tells objects apart at one level of an image pyramid.

The same network sees the image and its binned copies. At each level it calls
the objects that have the size of those in a training crop, and all that is
larger is the rest, with the sky (as `Singh & Davis 2018
<https://arxiv.org/abs/1711.08189>`_ do in training and in use).
"""

import torch
from torch import nn

from astrodino_seg.inputs.channels import PreprocessSpec
from astrodino_seg.inputs.rules import (
    NoiseUnits,
    WithNoiseUnits,
    planes_from_dict,
    planes_to_dict,
)
from astrodino_seg.models.calibration import read_calibration
from astrodino_seg.models.convolutions import ConvBlock
from astrodino_seg.models.decision import Decision
from astrodino_seg.models.encoder import DEFAULT_VIT, dense_tokens
from astrodino_seg.models.files import write_weights
from astrodino_seg.models.head import InstanceHead
from astrodino_seg.models.vit import VisionTransformer

__all__ = ['CALLED', 'FORMAT', 'KEPT', 'Model']

#: Radii, in pixels of the level, of the objects that are called: those of a
#: binned image, whose next finer level has called what is smaller, and at
#: most so many at any level,
CALLED = 12, 26
#: and of those that may be called or not, on either side.
KEPT = 9, 34
#: Name and version of the file format of a `Model`.
FORMAT = 'astrodino_seg/2'


class Model(nn.Module):
    """
    Preprocessing spec, Vision Transformer and head.

    The Vision Transformer sees the channels in noise units that the head sees,
    or planes of its own, as weights of others need them.

    Parameters
    ----------
    vit : dict, optional
        Arguments of `~astrodino_seg.models.vit.VisionTransformer` but
        ``in_channels``.
    head : dict, optional
        Arguments of `InstanceHead` but the first two.
    preprocess : dict, optional
        Arguments of `~astrodino_seg.inputs.channels.PreprocessSpec`.
    planes : dict, optional
        The rule for the planes of the Vision Transformer, as of
        `~astrodino_seg.inputs.rules.planes_to_dict`; those of the head if `None`.
    decision : dict, optional
        Arguments of `~astrodino_seg.models.decision.Decision`, which is
        fitted to a network that is trained.
    calibration : dict, optional
        Arguments of `~astrodino_seg.models.calibration.Calibration`, which are
        fitted last.
    provenance : dict, optional
        Where the weights come from, and what was measured with them.

    Attributes
    ----------
    in_bfloat16 : bool
        Whether the network runs in bfloat16; `False` unless it is set.
    """

    in_bfloat16 = False

    def __init__(self, *, vit=None, head=None, preprocess=None, planes=None,
                 decision=None, calibration=None, provenance=None):
        super().__init__()
        self.preprocess = PreprocessSpec(**(preprocess or {}))
        self.vit_planes = None if planes is None else planes_from_dict(planes)
        n_channels = self.preprocess.n_channels
        self.spec = {'vit': {**DEFAULT_VIT, **(vit or {})},
                     'head': dict(head or {}),
                     'preprocess': self.preprocess.to_dict()}
        self.provenance = dict(provenance or {})
        if planes is not None:
            self.spec['planes'] = dict(planes)
        self.vit = VisionTransformer(
            in_channels=getattr(self.vit_planes, 'n_planes', n_channels),
            **self.spec['vit'])
        self.head = InstanceHead(in_channels=n_channels,
                                 token_dim=self.vit.dim, **self.spec['head'])
        self.decision = None
        if decision is not None:
            self.put_decision(Decision(**decision))
        self.calibration = calibration

    @classmethod
    def from_backbone(cls, backbone, head=None, *, preprocess=None):
        """
        Put a new grouping head on a backbone, which is copied.

        Parameters
        ----------
        backbone : `~astrodino_seg.models.backbone.Backbone`
            Any, of any patch size.
        head : dict, optional
            As of `Model`.
        preprocess : dict, optional
            As of `Model`, for a backbone with planes of its own. One of noise
            units has these already.

        Returns
        -------
        model : `Model`
            To be trained by `~astrodino_seg.train.fit_model`, and then
            `~astrodino_seg.train.decision.fit_decision`.

        Raises
        ------
        TypeError
            If the backbone has a rule for its planes that is not one of
            `~astrodino_seg.models.backbone`.
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

    def put_decision(self, decision):
        """Take a `~astrodino_seg.models.decision.Decision` as its own."""
        self.decision = decision
        self.spec['decision'] = dict(decision.spec)
        self.calibration = None         # it was that of another decision

    @property
    def calibration(self):
        """
        Arguments of `~astrodino_seg.models.calibration.Calibration`, a dict that is
        saved with the model; `None` if its probabilities are used as they are.
        """
        return self.spec.get('calibration')

    @calibration.setter
    def calibration(self, values):
        read_calibration(values)        # what is wrong is refused here
        self.spec.pop('calibration', None)
        if values is not None:
            self.spec['calibration'] = dict(values)

    @property
    def planes(self):
        """
        The rule for the input, `~astrodino_seg.inputs.rules.NoiseUnits` or
        `~astrodino_seg.inputs.rules.WithNoiseUnits`.
        """
        if self.vit_planes is None:
            return NoiseUnits(self.preprocess)
        return WithNoiseUnits(self.vit_planes, self.preprocess)

    def forward(self, x, binned):
        """
        Predict the dense maps of a batch; see `InstanceHead.forward`.

        Returns
        -------
        maps : `InstanceMaps`
            The maps.
        """
        return self.head(x[:, :self.head.in_channels], self.tokens(x), binned)

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
            Whether to store float16, in half the space.

        Raises
        ------
        ValueError
            If the batch norms are folded.
        """
        if any(isinstance(block, ConvBlock) and isinstance(
                block[1], nn.Identity) for block in self.modules()):
            msg = 'a fused model cannot be saved: its batch norms are gone'
            raise ValueError(msg)
        write_weights(path, self, FORMAT, half=half)
