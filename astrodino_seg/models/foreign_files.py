# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Reading checkpoints of others without running any code that they hold.
"""

from pickle import UnpicklingError
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch.serialization import (
    get_unsafe_globals_in_checkpoint,
    safe_globals,
)

from astrodino_seg.errors import ModelFileError

__all__ = ['read_state']

#: Under which name a checkpoint has its parameters, the best first: training
#: runs of DINO and DINOv2 have a teacher, Lightning a state_dict.
CONTAINERS = ('teacher', 'state_dict', 'model', 'model_ema', 'student')


class _Inert:
    """What is made in place of an object of a foreign class."""

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)

    def __init__(self, *args, **kwargs):
        pass

    def __setstate__(self, state):
        pass


def read_state(path, key=None):
    """
    Read the parameters of a checkpoint.

    Files of `torch.save` are read with ``weights_only=True``. Checkpoints of
    training runs hold other objects beside (options, whole modules); in place
    of each, of whatever class, an empty object is made.

    Parameters
    ----------
    path : `~pathlib.Path`
        A file of safetensors or of `torch.save`.
    key : str, optional
        Which part of the checkpoint; the first of `CONTAINERS` that it has
        if `None`.

    Returns
    -------
    state : dict of str to `~torch.Tensor`
        The parameters by their names in the file, on the CPU.

    Raises
    ------
    ModelFileError
        If the file cannot be read, or holds no parameters.
    """
    if path.suffix == '.safetensors':
        return _find(load_safetensors(path), key)
    try:
        zipped = is_zipfile(path)       # since torch 1.6
        unsafe = get_unsafe_globals_in_checkpoint(path) if zipped else []
        # one class for each name: torch looks them up by identity
        inert = [(type('Inert', (_Inert,), {}), name) for name in unsafe]
        with safe_globals(inert):
            content = torch.load(path, map_location='cpu', mmap=zipped,
                                 weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, LookupError, TypeError,
            ValueError, AttributeError) as err:
        # torch's own words here advise to read it unsafely
        reason = ('it is none, or holds code'
                  if isinstance(err, UnpicklingError)
                  else next(iter(str(err).splitlines()), repr(err)))
        msg = f'it cannot be read safely as a checkpoint: {reason}'
        raise ModelFileError(msg) from err
    return _find(content, key)


def load_safetensors(path):
    """The tensors of a safetensors file."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as err:
        msg = f'it is not a readable safetensors file: {err}'
        raise ModelFileError(msg) from err


def _find(content, key):
    """The parameters within the nested dictionaries of a checkpoint."""
    if key is not None:
        if not isinstance(content, dict) or key not in content:
            has = list(content) if isinstance(content, dict) else content
            msg = f'key: there is no {key!r} in it; it has {has}'
            raise ModelFileError(msg)
        content = content[key]
    while isinstance(content, dict):
        state = {k: v for k, v in content.items()
                 if isinstance(v, torch.Tensor)}
        inner = [name for name in CONTAINERS
                 if isinstance(content.get(name), dict)]
        if inner:
            content = content[inner[0]]
        elif state and len(state) == len(content):
            return state
        else:
            break
    msg = (f'no dictionary of parameters in it; looked for '
           f'{", ".join(CONTAINERS)}')
    raise ModelFileError(msg)
