# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Programs of others: find them, run them, and say what went wrong.
"""

import shutil
import subprocess
from pathlib import Path

from astrodino_seg.errors import MissingToolError

__all__ = ['find_program', 'run_program']


def find_program(*names):
    """
    Find a program on the ``PATH``.

    Parameters
    ----------
    *names : str
        The names that it may have.

    Returns
    -------
    path : str
        The first that there is.

    Raises
    ------
    MissingToolError
        If there is none.
    """
    for name in names:
        path = shutil.which(name)
        if path:
            return path
    others = f' (nor {", ".join(names[1:])})' if names[1:] else ''
    msg = f'{names[0]}{others} is not on the PATH'
    raise MissingToolError(msg)


def run_program(command, folder, timeout, line=-1):
    """
    Run a program and wait for it.

    Parameters
    ----------
    command : list of str
        The program and its arguments.
    folder : path-like
        Where it runs.
    timeout : float
        Seconds after which it is given up.
    line : int, optional
        Which line of its standard error tells what went wrong.

    Raises
    ------
    RuntimeError
        If it fails or takes too long; the message has that line.
    """
    name = Path(command[0]).name
    try:
        done = subprocess.run(command, cwd=folder, timeout=timeout,
                              stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, errors='replace', check=False)
    except subprocess.TimeoutExpired as err:
        msg = f'{name} was not done after {timeout} s'
        raise RuntimeError(msg) from err
    except OSError as err:
        msg = f'{name} cannot be run: {err}'
        raise RuntimeError(msg) from err
    if done.returncode:
        lines = (done.stderr.strip() or 'no message').splitlines()
        msg = f'{name} failed with status {done.returncode}: {lines[line]}'
        raise RuntimeError(msg)
