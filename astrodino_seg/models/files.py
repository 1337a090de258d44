# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The file of any model: written here, read by `astrodino_seg.models.load`.
"""

import hashlib
import json
import os
import tempfile
from pathlib import Path

from safetensors.torch import save as to_bytes

__all__ = ['digest', 'write_weights']


def digest(module):
    """
    What tells the weights of a part from any others.

    Parameters
    ----------
    module : `~torch.nn.Module`
        The part, in float32.

    Returns
    -------
    digest : str
        Hexadecimal sha256 of names and values.
    """
    content = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        content.update(key.encode())
        # -0 is 0
        content.update((value + 0).contiguous().numpy().tobytes())
    return content.hexdigest()


def write_weights(path, model, form, *, half=False, but=None, more=()):
    """
    Write a model's weights, spec and provenance to one file.

    Parameters
    ----------
    path : path-like
        The safetensors file. It appears whole or not at all.
    model : `~torch.nn.Module`
        With ``spec`` and ``provenance``, which go to the metadata as JSON.
    form : str
        Name and version of the format.
    half : bool, optional
        Whether to store float16, in half the space.
    but : str, optional
        The name of a part whose weights are left out.
    more : dict of str, optional
        Further metadata.
    """
    path = Path(path)
    metadata = {'format': form, 'spec': json.dumps(model.spec),
                'provenance': json.dumps(model.provenance), **dict(more)}
    tensors = {k: v.half() if half and v.is_floating_point() else v
               for k, v in model.state_dict().items()
               if but is None or not k.startswith(f'{but}.')}
    tensors = {k: v.contiguous() for k, v in tensors.items()}
    handle, name = tempfile.mkstemp(dir=path.parent, suffix='.part')
    try:
        with os.fdopen(handle, 'wb') as stream:
            stream.write(to_bytes(tensors, metadata))
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
