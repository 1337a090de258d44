# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Run `python -m benchmarks.trust.kills --kills 100`: each command is killed at
random times. It must leave nothing, or what is whole, or what the same command
goes on with; and after that command all must be as if nothing had happened.
"""

import argparse
import collections
import hashlib
import shutil
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.trust.forked import make_files, run_forked

#: Whose products are a set, all or none.
SETS = {
    'segment': ['segment', 'image.fits', '-q', '-o', 'out/x'],
    'report': ['report', 'image.fits', '-q', '-o', 'out/x', '--finders',
               'none'],
    'compare': ['compare', 'image.fits', '--finders', 'photutils',
                '--closeups', '1', '-o', 'out/x'],
    'simulate': ['simulate', '-o', 'out/x', '--size', '48', '--bands', 'grz']}
#: What the same command goes on with.
RESUMED = {
    'embed': ['embed', 'images', '-q', '-o', 'out/x.fits'],
    'stamps': ['stamps', 'out', '--skies', '2', '--large', '1', '--small',
               '3', '--bands', 'grz', '-q'],
    'train': ['train', 'train.toml', '-o', 'out'],
    'pretrain': ['pretrain', 'pretrain.toml', '-q', '-o', 'out'],
    'benchmark': ['benchmark', '-o', 'out', '--scenes', '1', '--finders',
                  'photutils', '-q']}
COMMANDS = {**SETS, **RESUMED}


def content_of(folder):
    """Hashes of the files in a folder by their names, TensorBoard's not."""
    return {str(path.relative_to(folder)): hashlib.sha256(
        path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob('*'))
        if path.is_file() and 'tfevents' not in path.name}


def visible(content):
    """Of these what `ls` shows."""
    return {name: code for name, code in content.items()
            if not name.split('/')[-1].startswith('.')
            and not name.startswith('.')}


class Kills:
    """A command, what it leaves undisturbed, and what when it is killed."""

    def __init__(self, name, files):
        self.name, self.files = name, Path(files)
        first, self.seconds = self._in_peace()
        second, _ = self._in_peace()
        #: without those of each run's own, as a log of times
        self.whole = {key: code if code == second[key] else None
                      for key, code in first.items()}

    def _in_peace(self):
        with tempfile.TemporaryDirectory() as folder:
            folder = self._copy(folder)
            ended = run_forked(COMMANDS[self.name], folder, cpu=300, wall=600)
            if ended.status != 0:
                msg = f'{self.name} failed: {ended.output}'
                raise RuntimeError(msg)
            return content_of(folder / 'out'), ended.seconds

    def _copy(self, folder):
        folder = Path(folder, 'work')
        shutil.copytree(self.files, folder)
        (folder / 'out').mkdir()
        return folder

    def _differs(self, content):
        """What is not as in an undisturbed run, a line each."""
        return [f'{key}: ' + ('is left' if key not in self.whole else
                              'is missing' if key not in content else
                              'differs')
                for key in sorted(self.whole.keys() | content.keys())
                if key not in content or key not in self.whole
                or self.whole[key] not in (None, content[key])]

    def kill(self, after):
        """What is left when it is killed, and what is wrong with that."""
        with tempfile.TemporaryDirectory() as folder:
            folder = self._copy(folder)
            ended = run_forked(COMMANDS[self.name], folder, cpu=300,
                               kill_after=after)
            left = content_of(folder / 'out')
            seen = visible(left)
            state = ('nothing' if not seen else 'part'
                     if self._differs(left) else 'whole')
            wrong = []
            if (state == 'part' and self.name in SETS
                    and len(seen) < len(self.whole)
                    and not any('.set/' in key for key in left)):
                wrong.append(f'of a set there are {sorted(seen)}')
            again = run_forked(COMMANDS[self.name], folder, cpu=300, wall=600)
            refused = ended.status == 0 or len(seen) == len(self.whole)
            if again.status != 0 and not (
                    refused and ' exists; ' in again.output):
                wrong.append(f'status {again.status}: {again.output[-800:]}')
            wrong += self._differs(content_of(folder / 'out'))
        return ('ended before' if ended.status == 0 else state), wrong


def main():
    """Print counts, and what was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--kills', type=int, default=100)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--commands', nargs='+', default=list(COMMANDS))
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    with tempfile.TemporaryDirectory() as files:
        make_files(Path(files, 'files'))
        for name in args.commands:
            kills = Kills(name, Path(files, 'files'))
            counts = collections.Counter()
            for after in kills.seconds * rng.random(args.kills):
                state, wrong = kills.kill(after)
                counts[state] += 1
                if wrong:
                    counts['WRONG'] += 1
                    print(f'{name} after {after:.2f} s, {state}: '
                          + '; '.join(wrong), flush=True)
            print(f'{name} ({kills.seconds:.1f} s): ' + ', '.join(
                f'{n} {what}' for what, n in sorted(counts.items())),
                flush=True)


if __name__ == '__main__':
    main()
