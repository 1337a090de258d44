# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Exceptions and warnings, and the checks for optional packages and for settings.
Wrong arguments raise `ValueError` or `TypeError`; the classes here exist only
where a caller may want to catch one by name.
"""

from importlib import import_module


class AstroDinoWarning(Warning):
    """Base class of the warnings of this package."""


class AstroDinoUserWarning(UserWarning, AstroDinoWarning):
    """Something in the input is unusual; the result may not be meant."""


class BandWarning(AstroDinoUserWarning):
    """The bands could not be ordered by wavelength."""


class CollapseWarning(AstroDinoUserWarning):
    """A self-supervised training has found an answer that says nothing."""


class SkippedWarning(AstroDinoUserWarning):
    """Some of many items could not be used and were left out."""

    def __init__(self, kind, skipped):
        super().__init__(kind, skipped)
        self.kind, self.skipped = kind, skipped

    def __str__(self):
        item, reason = self.skipped[0]
        return (f'{self.kind} left out: {len(self.skipped)}, listed in '
                f'"skipped" of this warning; the first is {str(item)!r}: '
                f'{reason}')


class BusyError(OSError):
    """Another process writes the same files at this time."""


class TooLargeError(ValueError):
    """What comes from outside is, or says it is, larger than is allowed."""


class DownloadError(OSError):
    """A service answered with an error, or not with what was asked for."""


class MissingToolError(ImportError):
    """A program that a baseline runs is not on this machine."""


class ProgramError(RuntimeError):
    """A program that a baseline runs has failed."""


class EmptyImageError(ValueError):
    """An image has no valid pixels."""


class ModelFileError(ValueError):
    """A weights file is corrupt, foreign, or of another format version."""


def check_settings(values, rules):
    """
    Raise `ValueError` for values that are not as the rules of their names say:
    of a type (or some), for which a function is true, which is then in words.
    """
    for name, value in values.items():
        kinds, is_right, words = rules[name]
        kinds = kinds if isinstance(kinds, tuple) else (kinds,)
        if (not isinstance(value, kinds) or not is_right(value)
                or isinstance(value, bool) and bool not in kinds):
            msg = f'{name} must be {words}, got {value!r}'
            raise ValueError(msg)


def require(package, extra=None):
    """Import an optional package, or say in one sentence how to get it."""
    try:
        return import_module(package)
    except (ImportError, RuntimeError, OSError) as err:
        # a torchvision built for another torch raises RuntimeError or
        # OSError from within ``import timm``
        name = package.split('.')[0]
        how = (f'pip install "astrodino_seg[{extra}]"' if extra
               else f'pip install {name}')
        msg = f'{name} is needed for this and cannot be imported; {how}'
        raise ImportError(msg) from err
