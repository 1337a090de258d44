# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Files of weights: the only module that writes them and reads our own.

Weights, spec and provenance are in one safetensors file, the latter two as
JSON in its metadata; a bundled file's sha256 is checked before it is read.
"""

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes

from astrodino_seg.errors import ModelFileError
from astrodino_seg.files import sha256_of, whole_or_not

DATA = Path(__file__).parents[1] / 'data'
#: Name of the model that tells objects apart, which is the default.
DEFAULT_MODEL = 'grouping_tiny'
#: Name of the bundled backbone, which was trained without labels.
BUNDLED_BACKBONE = 'backbone_tiny'
#: Names of the bundled semantic heads, whose backbone is that.
BUNDLED_HEADS = ('linear_tiny', 'ms_tiny')
#: All names that stand for a bundled file.
BUNDLED = (DEFAULT_MODEL, *BUNDLED_HEADS, BUNDLED_BACKBONE)


class StoredWeights(NamedTuple):
    """A file, its metadata (``format``, ``spec``, ...), and its tensors."""

    path: Path
    metadata: dict
    tensors: dict


def weights_file(path=None):
    """The file of a path or of a name in `BUNDLED`; `None` is the default."""
    path = DEFAULT_MODEL if path is None else path
    return DATA / f'{path}.safetensors' if path in BUNDLED else Path(path)


def read_weights(path=None):
    """
    What one of our files holds; as of `weights_file`.

    Nothing is checked but the sha256 of bundled files. Raises
    `FileNotFoundError`, or `ModelFileError` if it is no safetensors file.
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
            return StoredWeights(file, f.metadata() or {},
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


def digest(module):
    """Hexadecimal sha256 of the names and values of a network's weights."""
    content = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        content.update(key.encode())
        value = value.detach().cpu() + 0        # -0 is 0
        content.update(value.contiguous().view(-1).view(torch.uint8).numpy())
    return content.hexdigest()


def write_weights(path, model, *, half=False, but=None, more=()):
    """
    Write a model's weights, and as JSON its spec and provenance, to one file,
    which appears whole or not at all; as float16 if ``half``, without those of
    the part ``but``, and with ``more`` metadata.
    """
    metadata = {'format': model.FORMAT, 'spec': json.dumps(model.spec),
                'provenance': json.dumps(model.provenance), **dict(more)}
    tensors = {k: v.half() if half and v.is_floating_point() else v
               for k, v in model.state_dict().items()
               if but is None or not k.startswith(f'{but}.')}
    tensors = {k: v.contiguous() for k, v in tensors.items()}
    with whole_or_not(path) as part:
        part.write_bytes(to_bytes(tensors, metadata))
