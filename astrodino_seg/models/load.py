# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
`load_model` and `load_backbone`: from names and files to networks. Only this
module reads our files: weights in one safetensors file, with spec and
provenance as JSON in its metadata; bundled ones are checked by their sha256.
"""

import json
import math
import os
import re
import textwrap
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch.overrides import TorchFunctionMode

from astrodino_seg import __version__
from astrodino_seg.errors import ModelFileError
from astrodino_seg.files import sha256_of
from astrodino_seg.models.backbone import Backbone, digest
from astrodino_seg.models.instance import Model
from astrodino_seg.models.semantic import SemanticModel

DATA = Path(__file__).parents[1] / 'data'
#: Name of the model that tells objects apart, which is the default.
DEFAULT_MODEL = 'grouping_tiny'
#: Name of the bundled backbone, which was trained without labels.
BUNDLED_BACKBONE = 'backbone_tiny'
#: Names of the bundled semantic heads, whose backbone is that.
BUNDLED_HEADS = ('linear_tiny', 'ms_tiny')
#: All names that stand for a bundled file.
BUNDLED = (DEFAULT_MODEL, *BUNDLED_HEADS, BUNDLED_BACKBONE)


def weights_file(path=None):
    """The file of a path or of a name in `BUNDLED`; `None` is the default."""
    path = DEFAULT_MODEL if path is None else path
    return DATA / f'{path}.safetensors' if path in BUNDLED else Path(path)


def read_weights(path=None):
    """
    The path of a file, as of `weights_file`, its metadata (``format``,
    ``spec``, ...) and its tensors by name; `FileNotFoundError`, or
    `ModelFileError` if it is no safetensors file.
    """
    file = weights_file(path)
    if path is None or path in BUNDLED:
        _check_bundled(file)
    if not file.is_file():
        msg = f'path: no weights file {str(file)!r}'
        raise FileNotFoundError(msg)
    try:
        with safe_open(file, 'pt') as f:
            keys = f.keys()
            return (file, f.metadata() or {},
                    {key: f.get_tensor(key) for key in keys})
    except (SafetensorError, OSError) as err:
        msg = f'path: {str(file)!r} is not a readable safetensors file: {err}'
        raise ModelFileError(msg) from err


@lru_cache
def _check_bundled(path):
    """Compare a bundled file with the sha256 beside it."""
    wanted = path.with_suffix('.sha256').read_text().split()[0]
    found = sha256_of(path)
    if found != wanted:
        msg = (f'path: bundled weights {path.name!r} have sha256 {found}, '
               f'not {wanted}; the installation is damaged')
        raise ModelFileError(msg)


def not_finite(tensors):
    """The names of weights that are not finite numbers, in words, or ''."""
    wrong = [key for key, value in sorted(tensors.items())
             if value.is_floating_point() and not value.isfinite().all()]
    return '' if not wrong else (f'{len(wrong)} parameters are not finite, '
                                 f'{", ".join(wrong[:3])} among them')


def history(names, weights, **dials):
    """
    What something was made of and by, in lines that FITS headers hold: the
    version, the files ``names`` and that of the weights (or a model; `False`
    for none) with a hash each, and the dials.
    """
    lines = [f'astrodino_seg {__version__}']
    files = [('input', name) for name in names]
    if hasattr(weights, 'state_dict'):
        lines.append(f'weights sha256 {digest(weights)[:16]}')
    elif weights is not False:
        files.insert(0, ('weights', weights_file(weights)))
    for kind, file in files:
        path = Path(str(file).split('[')[0] if not Path(file).exists()
                    else file)
        code = (f' sha256 {_hash(path, path.stat().st_mtime_ns)[:16]}'
                if path.is_file() else '')
        lines.append(f'{kind} {Path(file).name if code else file}{code}')
    lines.append(', '.join(f'{k}={v}' for k, v in dials.items()
                           if v is not None))
    return [part for line in lines if line for part in textwrap.wrap(
        line.encode('ascii', 'replace').decode(), 70)]


@lru_cache
def _hash(path, _changed):
    return sha256_of(path)


def load_model(path=None):
    """
    Read a model.

    Parameters
    ----------
    path : path-like, optional
        A file that `~astrodino_seg.Model.save` or
        `~astrodino_seg.models.SemanticModel.save` wrote, or the name
        of a bundled model, ``'grouping_tiny'``, ``'linear_tiny'`` or
        ``'ms_tiny'``; the default model, which is the first, if `None`.

    Returns
    -------
    model : `~astrodino_seg.Model` or \
            `~astrodino_seg.models.SemanticModel`
        In evaluation mode, on the CPU.

    Raises
    ------
    FileNotFoundError
        If ``path`` does not exist.
    ModelFileError
        If the file is corrupt, foreign, or of another format version.
    """
    return _make(path, Model, SemanticModel)


def load_any(path=None):
    """A model or a backbone, whichever one of our files holds."""
    return _make(path, Model, SemanticModel, Backbone)


def _make(path, *kinds):
    """A model from its file; the class is that of the file's format."""
    path, metadata, tensors = read_weights(path)
    known = {kind.FORMAT: kind for kind in kinds}
    found = metadata.get('format')
    if found not in known:
        msg = (f'path: {str(path)!r} has format {found!r}, this version '
               f'reads {" or ".join(map(repr, known))} here')
        raise ModelFileError(msg)
    if wrong := not_finite(tensors):
        msg = f'path: {str(path)!r}: {wrong}'
        raise ModelFileError(msg)
    kind = known[found]
    try:
        if 'backbone' in metadata:          # the file has the head alone
            tensors.update(_backbone_weights(metadata))
        with _limited(tensors):
            model = getattr(kind, 'from_spec', kind)(
                **json.loads(metadata['spec']),
                provenance=json.loads(metadata['provenance']))
        model.load_state_dict(tensors)
    except (ArithmeticError, LookupError, TypeError, ValueError,
            RuntimeError) as err:
        msg = f'path: weights of {str(path)!r} do not fit their spec: {err}'
        raise ModelFileError(msg) from err
    return model.eval()


def _limited(tensors):
    """
    No network that has far more numbers than a file of weights is begun, so
    that what the file says of it is checked before memory is taken.
    """
    makers = {torch.empty, torch.zeros, torch.ones, torch.full,
              torch.linspace}
    # buffers that no file has are small
    left = 10**7 + 2 * sum(one.numel() for one in tensors.values())

    class Limit(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            nonlocal left
            if func in makers:
                size = (args[2:] if func is torch.linspace
                        else args or (kwargs['size'],))
                sizes = size[0] if isinstance(size[0], (tuple, list)) else size
                left -= math.prod(int(n) for n in sizes)
                if left < 0:
                    msg = 'they are of a network that is larger than the file'
                    raise ValueError(msg)
            return func(*args, **(kwargs or {}))

    return Limit()


def _backbone_weights(metadata):
    """The weights of a bundled backbone, as a model that contains it has."""
    name = metadata['backbone']
    if name != BUNDLED_BACKBONE:
        msg = f'no bundled backbone {name!r}'
        raise ValueError(msg)
    backbone = load_backbone(name)
    if digest(backbone.vit) != metadata['sha256']:
        msg = f'it is the head of other weights than those of {name!r}'
        raise ValueError(msg)
    return backbone.state_dict()


def load_backbone(name_or_path=None, *, key=None, planes=None):
    """
    Load a backbone.

    Parameters
    ----------
    name_or_path : str, path-like, Backbone or model, optional
        * `None`: the bundled one, trained without labels;
        * a backbone, which is returned, or a model, which has one;
        * the name of a bundled backbone or model, ``'backbone_tiny'`` or
          ``'grouping_tiny'``;
        * a file of `~astrodino_seg.Model`,
          `~astrodino_seg.models.SemanticModel` or
          `~astrodino_seg.models.Backbone`;
        * a file of DINO, DINOv2 or DINOv3 as Meta or ``timm`` have it
          (``.pth``, ``.bin``, ``.safetensors``), or a checkpoint of a training
          run with a teacher and a student;
        * ``astrodino.ckpt`` or ``astroclip.ckpt`` of AstroCLIP (Parker et al.
          2024, MNRAS 531, 4990);
        * the name of such a model in ``timm``, which downloads it.
    key : str, optional
        Which part of a checkpoint to read, ``'student'`` for example. By
        default the teacher where there is one. Only for a file of others.
    planes : callable, optional
        Rule for the input instead of that of the family; see
        `~astrodino_seg.models.Backbone`.

    Returns
    -------
    backbone : `~astrodino_seg.models.Backbone`
        In evaluation mode, on the CPU, in float32.

    Raises
    ------
    FileNotFoundError
        If ``name_or_path`` looks like a path and there is no such file.
    ModelFileError
        If the file cannot be read safely, a parameter of it is unknown,
        missing or of a wrong shape (all of these are listed), or weights are
        not finite.
    ValueError
        If the name is of no family known here, ``planes`` does not fit, or
        ``key`` is given for what has no parts.
    ImportError
        If a name is given and ``timm`` cannot be imported.
    OSError
        If ``timm`` cannot download the weights.

    Examples
    --------
    >>> from astrodino_seg.models.load import load_backbone
    >>> backbone = load_backbone()
    >>> backbone.vit.patch_size, backbone.planes.n_planes
    (16, 5)
    """
    own = getattr(name_or_path, 'backbone', name_or_path)
    if isinstance(own, Backbone):
        _refuse(key)
        return own if planes is None else Backbone(
            own.vit, planes, own.name, own.provenance)
    if name_or_path is None:
        name_or_path = BUNDLED_BACKBONE
    path, name = Path(name_or_path), os.fspath(name_or_path)
    if name in BUNDLED or _is_own(path):
        _refuse(key)
        model = load_any(name_or_path)
        own = getattr(model, 'backbone', model)
        return Backbone(model.vit, planes or own.planes,
                        name if name in BUNDLED else path.name,
                        model.provenance).eval()
    # not before: what is ours needs nothing of it
    from astrodino_seg.models import foreign

    if path.is_file():
        try:
            return foreign.from_file(path, key, planes)
        except ModelFileError as err:
            msg = f'name_or_path: {name!r}: {err}'
            raise ModelFileError(msg) from err
    if any(re.fullmatch(one, name) for one in foreign.NAMES['timm']):
        _refuse(key)
        return foreign.from_timm(name, planes)
    if isinstance(name_or_path, Path) or path.suffix in (
            '.pth', '.pt', '.ckpt', '.bin', '.safetensors') or os.sep in name:
        msg = f'name_or_path: no weights file {name!r}'
        raise FileNotFoundError(msg)
    msg = (f'name_or_path: {name!r} is neither a file nor a name of timm for '
           f'a Vision Transformer of DINO, DINOv2 or DINOv3')
    raise ValueError(msg)


def _refuse(key):
    """Raise if a part is asked for of what has none."""
    if key is not None:
        msg = f'key: only a checkpoint of others has parts, got {key!r}'
        raise ValueError(msg)


def _is_own(path):
    """Whether this package wrote a file."""
    if path.suffix != '.safetensors' or not path.is_file():
        return False
    try:
        with safe_open(path, 'pt') as f:
            form = (f.metadata() or {}).get('format', '')
    except (SafetensorError, OSError):
        return False
    return form.startswith('astrodino_seg/')
