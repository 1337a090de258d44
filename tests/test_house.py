# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the command that counts modules, names and the main path.
"""

import importlib
import sys
import textwrap

import pytest
from benchmark_toys import script

FILES = {
    '__init__.py': """
        from small.parts import join
        __all__ = ['__version__', 'join', 'Box']
        __version__ = '1'
        """,
    'parts.py': """
        from dataclasses import dataclass
        from typing import NamedTuple

        class Base:
            def __init__(self, n):
                self.n = n

            def size(self):
                return self.n

        class Box(Base):
            @property
            def double(self):
                return sum(self.size() for _ in range(2))

        @dataclass
        class Pair:
            one: int

        class Point(NamedTuple):
            x: int

        def join(n):
            from small.deep import late
            def inner():
                return Box(n).double
            return late.finish(sorted([inner()], key=lambda x: -x))

        def unused():
            return Pair(1)
        """,
    'deep/__init__.py': "__all__ = ['finish', 'deeper']\ndeeper = 1\n",
    'deep/late.py': """
        from small.parts import Pair, Point
        __all__ = ['finish', 'other']

        def at_import():
            return Pair(2)

        TABLE = at_import()

        def finish(values):
            return Point(values[0])

        def other():
            return None
        """}
API = """
.. autofunction:: small.parts.join

.. autoclass:: small.parts.Pair
   :members:

.. automodule:: small.deep.late
   :members:

.. automodule:: small.parts
   :members: unused, Base

.. automodule:: small.deep
"""


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A package of four modules."""
    for name, text in FILES.items():
        path = tmp_path / 'small' / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip())
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module('small')
    for name in [name for name in sys.modules if name.split('.')[0]
                 == 'small']:
        del sys.modules[name]


def test_count(small):
    """By hand; the late import counts nothing but what is called of it."""
    numbers, largest = script('house.house').count(
        small, API, lambda: small.join(3))
    # public: join, Box; finish, deeper; Pair; other; unused, Base
    # path: join, Box, Box.double, Base, Base.__init__, Base.size; finish, and
    # Point that it makes
    assert numbers == {
        'modules': 4, 'flat at the top': 2, 'lines': 3 + 30 + 2 + 13,
        'lines of the largest module': 30, 'public names': 8,
        'names on the main path': 8, 'modules on the main path': 2}
    assert largest == 'parts.py'
    assert sys.getprofile() is None


def test_an_error_is_passed_on(small):
    house = script('house.house')
    with pytest.raises(TypeError, match='unsupported'):
        house.reached(small, lambda: small.join('x'))
    assert sys.getprofile() is None
