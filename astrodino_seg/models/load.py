# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Models and encoders from their files.

Weights, spec and provenance are in one safetensors file, the latter two as
JSON in its metadata; the bundled file's sha256 is checked before it is read.
This is the only module that reads the package's own weights.
"""

import hashlib
import json
import warnings
from functools import lru_cache
from pathlib import Path

from safetensors import SafetensorError, safe_open

from astrodino_seg.errors import AstroDinoUserWarning, ModelFileError
from astrodino_seg.models.encoder import ENCODER_FORMAT, Encoder
from astrodino_seg.models.files import digest
from astrodino_seg.models.instance import FORMAT, Model
from astrodino_seg.models.semantic import SEMANTIC_FORMAT, SemanticModel

__all__ = ['BUNDLED', 'BUNDLED_BACKBONE', 'BUNDLED_FILES', 'BUNDLED_HEADS',
           'BUNDLED_NAMES', 'ENCODER_FORMAT', 'FORMAT', 'Encoder', 'Model',
           'load_any', 'load_encoder', 'load_model', 'weights_file']

DATA = Path(__file__).parents[1] / 'data'
#: The weights of the default model.
BUNDLED = DATA / 'grouping_tiny.safetensors'
#: Names of the bundled models that tell objects apart.
BUNDLED_NAMES = ('grouping_tiny',)
#: Name of the bundled encoder, which was trained without labels.
BUNDLED_BACKBONE = 'backbone_tiny'
#: Names of the bundled semantic heads, whose backbone is that.
BUNDLED_HEADS = ('linear_tiny', 'ms_tiny')
#: All names that stand for a bundled file.
BUNDLED_FILES = (*BUNDLED_NAMES, *BUNDLED_HEADS, BUNDLED_BACKBONE)


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
        `~astrodino_seg.models.semantic.SemanticModel.save` wrote, or the name of a
        bundled model, one of `BUNDLED_NAMES` and `BUNDLED_HEADS`; the
        default model if `None`.

    Returns
    -------
    model : `Model` or `~astrodino_seg.models.semantic.SemanticModel`
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
    model : `Model`, `~astrodino_seg.models.semantic.SemanticModel` or `Encoder`
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
        spec = _without_old_decision(path, json.loads(metadata['spec']),
                                     tensors)
        model = kinds[found](**spec,
                             provenance=json.loads(metadata['provenance']))
        if 'backbone' in metadata:          # the file has the head alone
            tensors.update(_backbone_weights(metadata))
        model.load_state_dict(tensors)
    except (ArithmeticError, LookupError, TypeError, ValueError,
            RuntimeError) as err:
        msg = f'path: weights of {str(path)!r} do not fit their spec: {err}'
        raise ModelFileError(msg) from err
    return model.eval()


def _without_old_decision(path, spec, tensors):
    """The spec, and weights, less a decision that compared pairs alone."""
    if 'n_layers' in spec.get('decision', {'n_layers': 0}):
        return spec
    msg = (f'path: the decision in {str(path)!r} is of an earlier form and '
           'left out; astrodino_seg.train.fit_decision makes a new one')
    warnings.warn(msg, AstroDinoUserWarning)
    for key in [key for key in tensors if key.startswith('decision.')]:
        del tensors[key]
    return {key: value for key, value in spec.items()
            if key not in ('decision', 'calibration')}


def _backbone_weights(metadata):
    """The weights of a bundled backbone, as a model that contains it has."""
    name = metadata['backbone']
    if name != BUNDLED_BACKBONE:
        msg = f'no bundled backbone {name!r}'
        raise ValueError(msg)
    vit = load_encoder(name).vit
    if digest(vit) != metadata['sha256']:
        msg = f'it is the head of other weights than those of {name!r}'
        raise ValueError(msg)
    return {f'vit.{key}': value for key, value in vit.state_dict().items()}


@lru_cache
def _check_bundled(path):
    """Compare the bundled file with the sha256 beside it."""
    wanted = path.with_suffix('.sha256').read_text().split()[0]
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != wanted:
        msg = (f'path: bundled weights {path.name!r} have sha256 {found}, '
               f'not {wanted}; the installation is damaged')
        raise ModelFileError(msg)
