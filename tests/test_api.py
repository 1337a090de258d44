# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The public face as ``api.txt`` has it: names, arguments and options.

A change that is meant is taken over with ``python -m pytest
tests/test_api.py``, which leaves the new text in ``api.txt.new`` beside it;
move it over the old one, and tell users in ``changes/``.
"""

import inspect
import re
from difflib import unified_diff
from importlib import import_module
from pathlib import Path

import astrodino_seg
from astrodino_seg.cli import _parser

HERE = Path(__file__).parent
API = HERE.parent / 'docs' / 'reference' / 'api.rst'


def documented():
    """Dotted names that the page of the API has."""
    current = 'astrodino_seg'
    for kind, name, listed in re.findall(
            r'^\.\. (currentmodule|auto\w+):: (\S+)'
            r'(?:\n(?: +:.*\n)*? +:members: *(.*))?', API.read_text(), re.M):
        if kind == 'currentmodule':
            current = name
        elif kind != 'automodule':
            yield name if '.' in name else f'{current}.{name}'
        else:
            members = re.split(', *', listed) if listed else import_module(
                name).__all__
            yield from (f'{name}.{one}' for one in members)


def face():
    """A line for each name, method and command, sorted."""
    lines = {f'astrodino_seg.{name}' for name in astrodino_seg.__all__}
    for name in documented():
        home, _, last = name.rpartition('.')
        value = getattr(import_module(home), last)
        lines |= set(lines_of(name, value))
    commands = _parser()._subparsers._group_actions[0].choices
    for name, command in commands.items():
        options = [(bool(action.option_strings), '/'.join(
            action.option_strings) or action.dest)
            for action in command._actions]
        options.sort(key=lambda one: one if one[0] else (False, ''))
        lines.add(' '.join(['astrodino', name, *(
            option for _, option in options)]))
    return '\n'.join(sorted(lines)) + '\n'


def lines_of(name, value):
    """A name with its arguments, and those within a class."""
    if not callable(value):
        yield name
        return
    yield name + arguments(value)
    if not inspect.isclass(value) or issubclass(value, BaseException):
        return
    for key, one in vars(value).items():
        if key.startswith('_') and key != '__call__':
            continue
        one = getattr(one, '__func__', one)
        yield f'{name}.{key}' + (arguments(one) if inspect.isfunction(one)
                                 else '')


def arguments(function):
    """Its arguments and their defaults, without types."""
    if inspect.isclass(function) and issubclass(function, BaseException):
        return ''
    signature = inspect.signature(function)
    return str(signature.replace(
        parameters=[one.replace(annotation=one.empty)
                    for one in signature.parameters.values()],
        return_annotation=signature.empty))


def test_public_face():
    old, new = (HERE / 'api.txt').read_text(), face()
    if old != new:
        (HERE / 'api.txt.new').write_text(new)
    difference = ''.join(unified_diff(
        old.splitlines(True), new.splitlines(True), 'api.txt', 'now', n=0))
    assert not difference, f'{__doc__}\n{difference}'
