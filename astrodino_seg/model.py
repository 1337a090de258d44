# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
A model: preprocessing spec, backbone and head, in one safetensors file; or
without the head, an encoder.

The spec and the provenance are JSON in the file's metadata; the bundled
file's sha256 is checked before it is read. This is the only module that
reads the package's own weights.
"""

import hashlib
import json
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from astrodino_seg.errors import ModelFileError
from astrodino_seg.heads import STRIDES, ConvBlock, GroupingHead
from astrodino_seg.pairs import PairScore, n_features
from astrodino_seg.preprocess import PreprocessSpec
from astrodino_seg.semantic import SEMANTIC_FORMAT, SemanticModel
from astrodino_seg.unet import UNet
from astrodino_seg.vit import VisionTransformer
from astrodino_seg.weights import write_weights

__all__ = ['BUNDLED', 'BUNDLED_BACKBONE', 'BUNDLED_FILES', 'BUNDLED_NAMES',
           'ENCODER_FORMAT', 'FORMAT', 'Encoder', 'Model', 'load_any',
           'load_encoder', 'load_model', 'weights_file']

#: Name and version of the file format, in the metadata of each file.
FORMAT = 'astrodino_seg/1'
#: That of an encoder.
ENCODER_FORMAT = 'astrodino_seg/backbone-1'
DATA = Path(__file__).parent / 'data'
#: The weights of the default model.
BUNDLED = DATA / 'grouping_tiny.safetensors'
#: Names of the bundled models: the default, and the control with a U-Net.
BUNDLED_NAMES = ('grouping_tiny', 'grouping_unet')
#: Name of the bundled encoder, which was trained without labels.
BUNDLED_BACKBONE = 'backbone_tiny'
#: All names that stand for a bundled file.
BUNDLED_FILES = (*BUNDLED_NAMES, BUNDLED_BACKBONE)

DEFAULT_VIT = {'patch_size': 16, 'dim': 192, 'depth': 6, 'n_heads': 3,
               'pos_embed': 'none', 'rope': True, 'n_registers': 2}


class Model(nn.Module):
    """
    Preprocessing spec, backbone and grouping head.

    Parameters
    ----------
    vit : dict, optional
        Arguments of `~astrodino_seg.vit.VisionTransformer` but
        ``in_channels``.
    unet : dict, optional
        Arguments of `~astrodino_seg.unet.UNet` but ``in_channels``, to have
        that, the control, in place of the ViT.
    head : dict, optional
        Arguments of `~astrodino_seg.heads.GroupingHead` but ``in_channels``
        and ``token_dim``.
    preprocess : dict, optional
        Arguments of `~astrodino_seg.preprocess.PreprocessSpec`.
    provenance : dict, optional
        Where the weights come from, and thresholds measured with them.

    Raises
    ------
    ValueError
        If both ``vit`` and ``unet`` are given.
    """

    def __init__(self, *, vit=None, unet=None, head=None, preprocess=None,
                 provenance=None):
        super().__init__()
        if vit is not None and unet is not None:
            msg = f'only one of vit={vit!r} and unet={unet!r} can be given'
            raise ValueError(msg)
        self.preprocess = PreprocessSpec(**(preprocess or {}))
        n_channels = self.preprocess.n_channels
        if unet is None:
            self.spec = {'vit': {**DEFAULT_VIT, **(vit or {})}}
            self.vit = VisionTransformer(in_channels=n_channels,
                                         **self.spec['vit'])
        else:
            self.spec = {'unet': dict(unet)}
            self.unet = UNet(in_channels=n_channels, **unet)
        self.spec.update(head=dict(head or {}),
                         preprocess=self.preprocess.to_dict())
        self.provenance = dict(provenance or {})
        backbone = self.vit if unet is None else self.unet
        self.head = GroupingHead(in_channels=n_channels,
                                 token_dim=backbone.dim, **self.spec['head'])
        self.pairs = PairScore(n_features(self.head.n_descriptor, n_channels))

    def forward(self, x):
        """
        Predict the dense maps of a batch of channels (B, C, H, W).

        Returns
        -------
        maps : `~astrodino_seg.heads.DenseMaps`
            The maps.
        """
        return self.head(x, self.tokens(x))

    def tokens(self, x):
        """The backbone's last features, (B, dim, H/16, W/16)."""
        if 'unet' in self.spec:
            return self.unet(x)
        tokens = self.vit.forward_features(x).patches[-1]
        if self.vit.patch_size == STRIDES[-1]:
            return tokens
        return nn.functional.avg_pool2d(tokens,
                                        STRIDES[-1] // self.vit.patch_size)

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


class Encoder(nn.Module):
    """
    Preprocessing spec and Vision Transformer, without a head.

    What `~astrodino_seg.pretrain.pretrain` trains, and a `Model` can start
    from.

    Parameters
    ----------
    vit : dict, optional
        Arguments of `~astrodino_seg.vit.VisionTransformer` but
        ``in_channels``.
    preprocess : dict, optional
        Arguments of `~astrodino_seg.preprocess.PreprocessSpec`.
    provenance : dict, optional
        Where the weights come from.
    """

    def __init__(self, *, vit=None, preprocess=None, provenance=None):
        super().__init__()
        self.preprocess = PreprocessSpec(**(preprocess or {}))
        self.spec = {'vit': {**DEFAULT_VIT, **(vit or {})},
                     'preprocess': self.preprocess.to_dict()}
        self.provenance = dict(provenance or {})
        self.vit = VisionTransformer(in_channels=self.preprocess.n_channels,
                                     **self.spec['vit'])

    def forward(self, x):
        """
        The features of a batch of channels (B, C, H, W).

        Returns
        -------
        features : `~astrodino_seg.vit.Features`
            CLS token and patch tokens.
        """
        return self.vit.forward_features(x)

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
        write_weights(path, self, ENCODER_FORMAT, half=half)


def weights_file(path=None):
    """
    Where the weights of a model or an encoder are.

    Parameters
    ----------
    path : path-like, optional
        As in `load_model` and `load_encoder`.

    Returns
    -------
    path : `~pathlib.Path`
        The file, which need not exist.
    """
    if path is None:
        return BUNDLED
    if path in BUNDLED_FILES:
        return DATA / f'{path}.safetensors'
    return Path(path)


def load_model(path=None):
    """
    Read a model.

    Parameters
    ----------
    path : path-like, optional
        A file that `Model.save` or
        `~astrodino_seg.semantic.SemanticModel.save` wrote, or the name of a
        bundled model, one of `BUNDLED_NAMES`; the default model if `None`.

    Returns
    -------
    model : `Model` or `~astrodino_seg.semantic.SemanticModel`
        In evaluation mode, on the CPU.

    Raises
    ------
    FileNotFoundError
        If ``path`` does not exist.
    ModelFileError
        If the file is corrupt, foreign, or of another format version.
    """
    return _read(path, {FORMAT: Model, SEMANTIC_FORMAT: SemanticModel})


def load_encoder(path=BUNDLED_BACKBONE):
    """
    Read an encoder.

    Parameters
    ----------
    path : path-like, optional
        A file that `Encoder.save` wrote; by default the bundled one, which
        has the name `BUNDLED_BACKBONE`.

    Returns
    -------
    encoder : `Encoder`
        In evaluation mode, on the CPU.

    Raises
    ------
    FileNotFoundError
        If ``path`` does not exist.
    ModelFileError
        If the file is corrupt, foreign, or of another format version.
    """
    return _read(path, {ENCODER_FORMAT: Encoder})


def load_any(path=None):
    """
    Read a model or an encoder, whichever a file holds.

    Parameters
    ----------
    path : path-like, optional
        As in `load_model` and `load_encoder`; the default model if `None`.

    Returns
    -------
    model : `Model`, `~astrodino_seg.semantic.SemanticModel` or `Encoder`
        In evaluation mode, on the CPU.

    Raises
    ------
    FileNotFoundError
        If ``path`` does not exist.
    ModelFileError
        If the file is corrupt, foreign, or of another format version.
    """
    return _read(path, {FORMAT: Model, SEMANTIC_FORMAT: SemanticModel,
                        ENCODER_FORMAT: Encoder})


def _read(path, kinds):
    """Make a model from a file; the class is that of the file's format."""
    named = path is None or path in BUNDLED_FILES
    path = weights_file(path)
    if named:
        _check_bundled(path)
    if not path.is_file():
        msg = f'path: no weights file {str(path)!r}'
        raise FileNotFoundError(msg)
    try:
        with safe_open(path, 'pt') as f:
            metadata = f.metadata() or {}
            keys = f.keys()
            tensors = {key: f.get_tensor(key) for key in keys}
    except (SafetensorError, OSError) as err:
        msg = f'path: {str(path)!r} is not a readable safetensors file: {err}'
        raise ModelFileError(msg) from err
    found = metadata.get('format')
    if found not in kinds:
        msg = (f'path: {str(path)!r} has format {found!r}, this version '
               f'reads {" or ".join(map(repr, kinds))} here')
        raise ModelFileError(msg)
    try:
        model = kinds[found](**json.loads(metadata['spec']),
                     provenance=json.loads(metadata['provenance']))
        model.load_state_dict(tensors)
    except (ArithmeticError, LookupError, TypeError, ValueError,
            RuntimeError) as err:
        msg = f'path: weights of {str(path)!r} do not fit their spec: {err}'
        raise ModelFileError(msg) from err
    return model.eval()


@lru_cache
def _check_bundled(path):
    """Compare the bundled file with the sha256 beside it."""
    wanted = path.with_suffix('.sha256').read_text().split()[0]
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != wanted:
        msg = (f'path: bundled weights {path.name!r} have sha256 {found}, '
               f'not {wanted}; the installation is damaged')
        raise ModelFileError(msg)
