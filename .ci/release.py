# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Build wheel and sdist, install each in a clean environment, and use it there.

    python .ci/release.py FOLDER [--no-deps-from SITE]

It needs ``build``. Each must have the weights; their sizes are printed, and
the wheel may have 15 MiB. With ``--no-deps-from`` dependencies are taken from
another environment's site-packages and not downloaded; it then also needs
setuptools-scm.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

LARGEST = 15 * 2**20
USE = """
import astrodino_seg
from astrodino_seg import DinoSegmenter
from astrodino_seg.datasets import demo_image
print(astrodino_seg.__file__)
print(len(DinoSegmenter().segment(demo_image()).table), 'labels')
"""


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('folder', type=Path)
    parser.add_argument('--no-deps-from', type=Path)
    args = parser.parse_args()
    before = set(args.folder.glob('*')) if args.folder.exists() else set()
    isolated = [] if args.no_deps_from is None else ['--no-isolation']
    subprocess.run([sys.executable, '-m', 'build', *isolated, '-o',
                    args.folder, Path(__file__).parents[1]], check=True,
                   stdout=subprocess.DEVNULL)
    made = sorted(set(args.folder.glob('*')) - before) or sorted(before)
    for path in made:
        size = path.stat().st_size
        print(f'{path.name}: {size / 2**20:.1f} MiB', flush=True)
        if path.suffix == '.whl' and size > LARGEST:
            sys.exit(f'{path.name} is larger than {LARGEST / 2**20:.0f} MiB')
        use(path.resolve(), args.no_deps_from)


def use(path, site):
    """Install a file where nothing else is, and segment the demo with it."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder) / ('Scripts' if os.name == 'nt' else 'bin'
                                 ) / 'python'
        env = {key: value for key, value in os.environ.items()
               if key != 'PYTHONPATH'}
        subprocess.run([python, '-m', 'pip', 'install', '-q',
                        *([] if site is None else ['--no-deps']), path],
                       check=True, env=env, cwd=folder)
        if site is not None:    # behind its own packages
            own = next(Path(folder).rglob('site-packages'))
            (own / 'dependencies.pth').write_text(f'{site.resolve()}\n')
        subprocess.run([python, '-c', USE], check=True, env=env, cwd=folder)


if __name__ == '__main__':
    main()
