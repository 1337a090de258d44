# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the errors module.
"""

import sys

import pytest

from astrodino_seg.errors import (
    AstroDinoUserWarning,
    BandWarning,
    MissingToolError,
    ModelFileError,
    OutOfDomainWarning,
    require,
)


def test_classes():
    assert issubclass(BandWarning, AstroDinoUserWarning)
    assert issubclass(OutOfDomainWarning, AstroDinoUserWarning)
    assert issubclass(AstroDinoUserWarning, UserWarning)
    assert issubclass(ModelFileError, ValueError)
    assert issubclass(MissingToolError, ImportError)


def test_require():
    assert require('os.path').join('a', 'b') is not None


def test_require_missing():
    with pytest.raises(ImportError, match='pip install no_such_package$'):
        require('no_such_package.part')
    match = r'pip install "astrodino_seg\[plot\]"'
    with pytest.raises(ImportError, match=match):
        require('no_such_package', extra='plot')


@pytest.mark.parametrize('error', [RuntimeError, OSError])
def test_require_broken(tmp_path, monkeypatch, error):
    (tmp_path / 'broken_package.py').write_text(f'raise {error.__name__}')
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match='broken_package is needed') as info:
        require('broken_package')
    assert isinstance(info.value.__cause__, error)
    assert 'broken_package' not in sys.modules
