# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What the merge dial, the prior odds of stars and the seed limit do.

    python -m benchmarks.dials.tune_segmenter [--scenes 24] [--others 14]
        [--fields FOLDER] [--model FILE] [--cache FOLDER] [--docs FOLDER]

On scenes of the validation split, on others of the generator of
``benchmarks/finders/other_scenes.py`` (which are not those of its table), and,
with --fields, on real fields: a folder with a ``score.py`` whose ``LABELS``,
``load``, ``score`` and ``pooled`` say what is in them and how labels are
judged. The network looks at each once; --cache keeps the rendered scenes.
``dials.txt`` goes to --docs.
"""

import argparse
import importlib.util
import itertools
import warnings
from pathlib import Path

from astrodino_seg.evaluate.benchmark import scene_scores
from astrodino_seg.evaluate.tables import (
    bootstrap,
    list_table,
    plus_minus,
    summary,
)
from astrodino_seg.image import as_image
from astrodino_seg.models.decision import Decision
from benchmarks.common import Network
from benchmarks.finders.other_scenes import other_scene

SETTINGS = 'star odds', 'min_seed', 'merge'
COLUMNS = ('pq', 'f1', 'ok', 'frag', 'contam', 'lost', 'sep')
MERGE = (0.15, 0.2, 0.22, 0.25, 0.3, 0.4)
#: Added to the decision's own.
STAR_ODDS = (-2.0, 0.0)
MIN_SEED = (0.7,)
#: Other scenes have seeds from here on.
FIRST_OTHER = 5000


def settings(network):
    """All that is tried: odds, seed limit, dial, and the decision for it."""
    own = network.model.decision
    for odds, limit, merge in itertools.product(STAR_ODDS, MIN_SEED, MERGE):
        decision = Decision(**{**own.spec,
                               'star_odds': own.star_odds + odds})
        decision.load_state_dict(own.state_dict())
        yield (decision.star_odds, limit, merge), decision.eval()


def labelled(network, looks):
    """The labels of one image with all settings."""
    own = network.model.decision
    for (odds, limit, merge), decision in settings(network):
        network.model.decision = decision
        yield ((odds, limit, merge),
               network.group(looks, merge=merge, min_seed=limit).groups)
    network.model.decision = own


def scored(network, looks):
    """Records of `scene_scores` of some looks, a list for each setting."""
    records = {}
    for one in looks:
        for key, labels in labelled(network, one):
            records.setdefault(key, []).append(
                scene_scores(one.truth, labels, one.image))
    return records


def real(network, folder):
    """What the scorer of real fields says of each setting."""
    spec = importlib.util.spec_from_file_location('score', folder / 'score.py')
    judge = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(judge)
    rows = {}
    for name in judge.LABELS:
        field = judge.load(name)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            image = as_image(field['bands'])
        for key, labels in labelled(network, network.look(image, None)):
            rows.setdefault(key, []).extend(judge.score(labels, field))
    return {key: judge.pooled(found) for key, found in rows.items()}


def lines_of(title, records):
    """A table of the settings on some scenes."""
    rows = []
    for key, scenes in records.items():
        value, interval = summary(scenes), bootstrap(scenes)
        rows.append((*map('{:g}'.format, key), *(
            plus_minus(value[name], *interval[name]) for name in COLUMNS)))
    return [title, '', *list_table((*SETTINGS, *COLUMNS), rows), '']


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--scenes', type=int, default=24)
    parser.add_argument('--others', type=int, default=14)
    parser.add_argument('--fields', type=Path)
    parser.add_argument('--model', help='a weights file; default: bundled')
    parser.add_argument('--cache', help='folder for rendered scenes')
    parser.add_argument('--docs', type=Path, help='folder for the table')
    args = parser.parse_args()
    network = Network(args.model, args.cache)
    lines = lines_of(
        f'{args.scenes} scenes of the validation split:',
        scored(network, network.scenes('validation', args.scenes)))
    if args.others:
        lines += lines_of(
            f'{args.others} scenes of another generator:',
            scored(network, (network.look(*other_scene(FIRST_OTHER + k))
                             for k in range(args.others))))
    if args.fields:
        found = real(network, args.fields)
        names = list(next(iter(found.values())))
        rows = [
            (*map('{:g}'.format, key), *(f'{one[name]:.3g}' for name in names))
            for key, one in found.items()]
        lines += ['Real fields:', '',
                  *list_table((*SETTINGS, *names), rows), '']
    print('\n'.join(lines))
    if args.docs:
        (args.docs / 'dials.txt').write_text('\n'.join(lines).rstrip() + '\n')


if __name__ == '__main__':
    main()
