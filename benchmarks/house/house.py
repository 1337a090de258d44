# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
How large the house is: modules, lines, public names, and the main path.

    python -m benchmarks.house.house [-o FILE]

The table is printed, and written to ``house.txt`` beside this file or to FILE.

- A module is a ``.py`` file of the package, ``__init__.py`` included; flat at
  the top are those that are in no folder. Lines are all lines of these files.
- Public names are those in ``__all__`` of the package and of its folders, but
  for dunders, and those that ``docs/reference/api.rst`` documents, by their
  last part: the arguments of ``autofunction``, ``autoclass``,
  ``autoexception`` and ``autodata``, and of ``automodule`` the members that it
  lists, or else all in the module's ``__all__``. Methods and attributes are
  not counted.
- The main path is what one call of ``DinoSegmenter()`` on the image of
  ``astrodino demo`` reaches, by `sys.setprofile`: functions and methods whose
  code lies in the package and is run, and the classes that these are methods
  of or that are made. What is defined in a function counts as that function;
  what runs because a module is imported does not count. A second number is
  that of the modules that these names are defined in.
"""

import argparse
import re
import sys
import threading
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).parent
API = HERE.parents[1] / 'docs' / 'reference' / 'api.rst'
#: By what is counted, how many there may be.
TARGETS = {'modules': 95, 'flat at the top': None, 'lines': 18_000,
           'lines of the largest module': 350, 'public names': 60,
           'names on the main path': 200, 'modules on the main path': 20}


def module_lines(package):
    """Number of lines of each module, by its path in the package."""
    folder = Path(package.__file__).parent
    return {path.relative_to(folder).as_posix():
            len(path.read_text().splitlines())
            for path in sorted(folder.rglob('*.py'))}


def public_names(package, api):
    """Names of the faces of folders, and those that a page documents."""
    top = Path(package.__file__).parent
    names = set()
    for path in top.rglob('__init__.py'):
        parts = path.parent.relative_to(top.parent).parts
        names.update(getattr(import_module('.'.join(parts)), '__all__', ()))
    for kind, target, option in re.findall(
            r'^\.\. auto(\w+):: (\S+)((?:\n +:members:.*)?)', api, re.M):
        listed = option.partition(':members:')[2].strip()
        if kind != 'module':
            names.add(target.split('.')[-1])
        elif listed:
            names.update(one.strip() for one in listed.split(','))
        elif option:
            names.update(import_module(target).__all__)
    return {name for name in names if not name.startswith('__')}


def reached(package, call):
    """(module, name) of all of a package that a call runs."""
    folder = str(Path(package.__file__).parent)
    found, importing = set(), 0

    def note(frame, event, _):
        nonlocal importing
        code = frame.f_code
        if code.co_name == '<module>':
            importing += {'call': 1, 'return': -1}.get(event, 0)
        if event != 'call' or importing:
            return
        if code.co_filename.startswith('<') and code.co_varnames[:1] in (
                ('self',), ('_cls',)):      # of a dataclass or a NamedTuple
            made = frame.f_locals[code.co_varnames[0]]
            made = made if isinstance(made, type) else type(made)
            if made.__module__.split('.')[0] == package.__name__:
                found.add((made.__module__, made.__qualname__))
        elif code.co_filename.startswith(folder):
            name = code.co_qualname.split('.<locals>')[0]
            if not name.startswith('<'):
                parts = name.split('.')
                found.update((frame.f_globals['__name__'], '.'.join(
                    parts[:k + 1])) for k in range(len(parts)))

    before = sys.getprofile()
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(before)
        threading.setprofile(before)
    return found


def count(package, api, call):
    """The numbers by the keys of `TARGETS`, and the largest module."""
    lines, path = module_lines(package), reached(package, call)
    largest = max(lines, key=lines.get)
    return dict(zip(TARGETS, (
        len(lines), sum('/' not in name for name in lines),
        sum(lines.values()), lines[largest],
        len(public_names(package, api)), len(path),
        len({module for module, _ in path})))), largest


def table(numbers, largest):
    """The numbers beside what they may be at most."""
    rows = ['                                now   at most']
    for name, n in numbers.items():
        limit = TARGETS[name] or ''
        rows.append(f'{name:28}{n:7}{limit:10}')
    return '\n'.join([*rows, '', f'The largest module is {largest}.', ''])


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('-o', '--output', type=Path,
                        default=HERE / 'house.txt')
    args = parser.parse_args()
    import astrodino_seg
    from astrodino_seg.datasets import demo_image

    image, finder = demo_image(), astrodino_seg.DinoSegmenter
    text = table(*count(astrodino_seg, API.read_text(),
                        lambda: finder()(image)))
    print(text, end='')
    args.output.write_text(text)


if __name__ == '__main__':
    main()
