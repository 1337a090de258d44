# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The model that tells objects apart at one level of an image pyramid. The same
network sees the image and its binned copies, and calls at each the objects
that have the size of those in a training crop (`Singh & Davis 2018
<https://arxiv.org/abs/1711.08189>`_).
"""

from dataclasses import asdict

import torch
from torch import nn

from astrodino_seg.inputs.channels import PreprocessSpec
from astrodino_seg.inputs.rules import NoiseUnits, WithNoiseUnits
from astrodino_seg.models.backbone import Backbone, DenseModel
from astrodino_seg.models.decision import Decision, Totals, read_calibration
from astrodino_seg.models.head import InstanceHead

#: Radii, in pixels of the level, of the objects that are called: those of a
#: binned image, whose next finer level has called what is smaller, and at
#: most so many at any level,
CALLED = 12, 26
#: and of those that may be called or not, on either side.
KEPT = 9, 34


class Model(DenseModel):
    """
    A backbone and a head that tells objects apart.

    The Vision Transformer sees the channels in noise units that the head sees,
    or planes of its own, as weights of others need them.

    Parameters
    ----------
    vit : dict, optional
        As of `~astrodino_seg.models.Backbone.from_spec`.
    head : dict, optional
        Arguments of `InstanceHead` but the first two.
    preprocess : dict, optional
        Arguments of `~astrodino_seg.inputs.PreprocessSpec`.
    planes : dict, optional
        The rule for the planes of the Vision Transformer, as of
        `~astrodino_seg.inputs.rules.planes_to_dict`; those of the head if
        `None`.
    decision : dict, optional
        Arguments of `~astrodino_seg.models.decision.Decision`, which is
        fitted to a network that is trained.
    totals : dict, optional
        Arguments of `~astrodino_seg.models.decision.Totals`, which are fitted
        to labels.
    calibration : dict, optional
        Arguments of `~astrodino_seg.models.decision.Calibration`, which are
        fitted last.
    provenance : dict, optional
        Where the weights come from, and what was measured with them.
    """

    #: Name and version of the file format.
    FORMAT = 'astrodino_seg/2'
    save = DenseModel.save      # so that the API page has it

    def __init__(self, *, vit=None, head=None, preprocess=None, planes=None,
                 decision=None, totals=None, calibration=None,
                 provenance=None):
        backbone = Backbone.from_spec(vit=vit, planes=planes,
                                      preprocess=preprocess)
        super().__init__(backbone, provenance)
        self._preprocess = PreprocessSpec(**(preprocess or {}))
        self.spec = {**backbone.spec, 'head': dict(head or {})}
        if isinstance(backbone.planes, NoiseUnits):
            if planes is not None and preprocess is not None:
                msg = (f'preprocess is that of the planes, {planes!r}, got '
                       f'{preprocess!r}')
                raise ValueError(msg)
            del self.spec['planes']
        self.spec['preprocess'] = asdict(self.preprocess)
        self.head = InstanceHead(in_channels=self.preprocess.n_channels,
                                 token_dim=self.vit.dim, **self.spec['head'])
        self.decision = None
        if decision is not None:
            self.put_decision(Decision(**decision))
        if totals is not None:
            self.put_totals(Totals(**totals))
        self.calibration = calibration

    @classmethod
    def from_backbone(cls, backbone, head=None, *, preprocess=None):
        """
        Put a new grouping head on a backbone, which is copied.

        Parameters
        ----------
        backbone : `~astrodino_seg.models.Backbone`
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
            ``astrodino_seg.inputs.rules``.
        ValueError
            If ``preprocess`` is given and the backbone has noise units.
        """
        return cls(**backbone.spec, head=head, preprocess=preprocess,
                   provenance={'backbone': {
                       'file': backbone.name, **backbone.provenance}}
                   )._copy_backbone(backbone)

    def put_decision(self, decision):
        """Take a `~astrodino_seg.models.decision.Decision` as its own."""
        self.decision = decision
        self.spec['decision'] = dict(decision.spec)
        self.calibration = None         # it was that of another decision

    def put_totals(self, totals):
        """Take `~astrodino_seg.models.decision.Totals` as its own."""
        self.totals = totals
        self.spec['totals'] = dict(totals.spec)

    @property
    def calibration(self):
        """
        Arguments of `~astrodino_seg.models.decision.Calibration`, a dict
        that is saved with the model; `None` if its probabilities are used as
        they are.
        """
        return self.spec.get('calibration')

    @calibration.setter
    def calibration(self, values):
        read_calibration(values)        # what is wrong is refused here
        self.spec.pop('calibration', None)
        if values is not None:
            self.spec['calibration'] = dict(values)

    @property
    def preprocess(self):
        """That of the head, which is the backbone's if that has one."""
        own = self.backbone.planes
        return own.spec if isinstance(own, NoiseUnits) else self._preprocess

    @property
    def planes(self):
        """
        The rule for the input, `~astrodino_seg.inputs.rules.NoiseUnits` or
        `~astrodino_seg.inputs.rules.WithNoiseUnits`.
        """
        own = self.backbone.planes
        return (own if isinstance(own, NoiseUnits)
                else WithNoiseUnits(own, self.preprocess))

    def binning(self, channels):
        """1: the image is seen at all levels of a pyramid."""
        return 1

    def forward(self, x, binned, *, dense=True):
        """
        Predict the dense maps of a batch; see `InstanceHead.forward`.

        Returns
        -------
        maps : `InstanceMaps`
            The maps.
        """
        return self.head(x[:, :self.head.in_channels], self.tokens(x), binned,
                         dense=dense)

    def tokens(self, x):
        """The backbone's last features, (B, dim, H/16, W/16)."""
        return self.backbone.tokens(x[:, -self.vit.in_channels:])

    def fused(self):
        """
        Fold the batch norms into the convolutions, for inference only.

        Returns
        -------
        model : `Model`
            This model, in evaluation mode.
        """
        self.eval()
        for block in self.head.modules():
            if isinstance(block, nn.Sequential) and isinstance(
                    block[1], nn.BatchNorm2d):
                block[0] = torch.nn.utils.fusion.fuse_conv_bn_eval(
                    block[0], block[1])
                block[1] = nn.Identity()
        self.is_fused = True
        return self.requires_grad_(False).to(
            memory_format=torch.channels_last)

    def run_in(self, bfloat16):
        """
        Whether the network runs in bfloat16 from now on; its weights are then
        rounded here, and not at each call, which of a `fused` model is final.
        """
        super().run_in(bfloat16)
        if bfloat16 and self.is_fused:
            for part in (self.vit.patch_embed, self.vit.blocks,
                         *self.head.convolutions()):
                for layer in part.modules():
                    if isinstance(layer, (nn.Conv2d, nn.Linear)):
                        layer.bfloat16()
