# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Run `python -m benchmarks.trust.files --cases 5000`: files of all kinds with
bytes, words and header cards changed, in the hands of the command that reads
them. It must end in 10 seconds of the processor and in 1 GiB, with a result or
with one sentence and without a traceback.
"""

import argparse
import collections
import re
import shutil
import signal
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.trust.forked import make_files, run_forked

CPU_SECONDS, N_BYTES = 10, 2**30
KILLED = -signal.SIGKILL, -signal.SIGXCPU
SEGMENT = ['segment', 'image.fits', '--no-png', '-q', '-o', 'out']
AT = ['segment', 'image.fits', '--cutout', '16', '--no-png', '-q', '-o',
      'out', '--positions']
#: What reads each kind; ``None`` is the file.
KINDS = {
    'image.fits': ['segment', None, *SEGMENT[2:]],
    'image.fits.gz': ['segment', None, *SEGMENT[2:]],
    'image.npz': ['segment', None, *SEGMENT[2:]],
    'mask.fits': [*SEGMENT, '--mask', None],
    'error.fits': [*SEGMENT, '--error', None],
    'labels.fits': ['embed', 'image.fits', '-o', 'out.fits', '-q',
                    '--labels', None],
    'model.safetensors': [*SEGMENT, '--model', None],
    'encoder.safetensors': ['info', '--model', None],
    'encoder.pth': ['embed', 'images', '-o', 'out.fits', '-q', '--backbone',
                    None],
    'train.toml': ['train', None, '-o', 'out'],
    'pretrain.toml': ['pretrain', None, '-q', '-o', 'out'],
    **{f'table.{ending}': [*AT, None]
       for ending in ('csv', 'ecsv', 'fits', 'vot')},
    'edits.csv': [*SEGMENT, '--edits', None],
    'edits.reg': [*SEGMENT, '--edits', None]}
WORDS = [b'nan', b'-1', b'0', b'1e999', b'', b'"', b'[', b'9' * 40, b'\xff',
         b'None', b'inf', b'1e-320', b'T', b"'x'", b'2', b'2147483648',
         b'100000', b'../..', b'\x00', b'0.5', b'{}', b'[1, 2]', b'"x"']


def mutate(content, rng):
    """The content of a file with one to three changes."""
    content = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(len(content))) if content else 0
        n = int(rng.integers(1, 100))
        how = rng.choice(['flip', 'cut', 'drop', 'repeat', 'word', 'word',
                          'word', 'card', 'card'])
        if how == 'flip':
            for k in rng.integers(0, max(len(content), 1), n % 8 + 1):
                content[k:k + 1] = bytes([int(rng.integers(256))])
        elif how == 'cut':
            del content[at:]
        elif how == 'drop':
            del content[at:at + n]
        elif how == 'repeat':
            content[at:at] = content[at:at + n]
        elif how == 'card' and content[:6] in (b'SIMPLE', b'XTENSI'):
            cards = [k for k in range(0, len(content), 80)
                     if content[k + 8:k + 10] == b'= ']
            k = int(rng.choice(cards)) + 10
            word = WORDS[rng.integers(len(WORDS))][:20]
            content[k:k + 20] = word.rjust(20)
        else:       # of what can be read
            found = [one.span() for one in re.finditer(
                rb'[\w.+-]+', content[:20_000])]
            if found:
                begin, end = found[rng.integers(len(found))]
                content[begin:end] = WORDS[rng.integers(len(WORDS))]
    return bytes(content)


def try_one(kind, seed, whole):
    """What came of one changed file, and how the command ended."""
    rng = np.random.default_rng([seed, *kind.encode()])
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder, 'work')
        shutil.copytree(whole, folder)
        path = folder / f'changed_{kind}'
        path.write_bytes(mutate((folder / kind).read_bytes(), rng))
        ended = run_forked([path.name if one is None else one
                            for one in KINDS[kind]], folder)
        goes_on = (folder / 'out' / 'log.jsonl').exists()   # it trains
    if 'Traceback' in ended.output or ended.status not in (
            0, 1, 2, 3, *KILLED):
        return 'CRASH', ended
    if ended.status in KILLED or ended.cpu_seconds > CPU_SECONDS:
        return ('used' if goes_on else 'HANG'), ended
    if ended.n_bytes > N_BYTES:
        return 'MEMORY', ended
    if ended.status == 1 and ended.output.count('astrodino: error:') != 1:
        return 'SILENT', ended
    return ('refused' if ended.status in (1, 2) else 'used'), ended


def main():
    """Print counts, and what was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--cases', type=int, default=5000)
    parser.add_argument('--first', type=int, default=0, help='seed')
    parser.add_argument('--kinds', nargs='+', default=list(KINDS))
    args = parser.parse_args()
    counts = collections.defaultdict(collections.Counter)
    most = collections.Counter()
    with tempfile.TemporaryDirectory() as whole:
        make_files(Path(whole, 'whole'))
        for k in range(args.cases):
            kind = args.kinds[k % len(args.kinds)]
            seed = args.first + k // len(args.kinds)
            what, ended = try_one(kind, seed, Path(whole, 'whole'))
            counts[kind][what] += 1
            most['cpu'] = max(most['cpu'], ended.cpu_seconds)
            most['bytes'] = max(most['bytes'], ended.n_bytes)
            if what.isupper():
                print(f'{kind} {seed}: {what} {ended.status} '
                      f'{ended.cpu_seconds:.1f} s {ended.n_bytes / 2**20:.0f} '
                      f'MiB\n{ended.output[-1500:]}', flush=True)
    for kind, found in counts.items():
        print(f'{kind}: ' + ', '.join(f'{n} {what}' for what, n in sorted(
            found.items())))
    print(f'at most {most["cpu"]:.1f} s and {most["bytes"] / 2**20:.0f} MiB')


if __name__ == '__main__':
    main()
