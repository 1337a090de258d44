# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for fit_head: heads on a handful of labelled images.
"""

import json
import warnings

import numpy as np
import pytest
import torch
from astropy.table import Table
from embed_toys import make_backbone
from level_toys import SMALL, killed_at, small_model
from numpy.testing import assert_allclose, assert_array_equal
from photutils.utils.exceptions import NoDetectionsWarning
from test_train import make_scene

from astrodino_seg import DinoSegmenter, load_model
from astrodino_seg.errors import AstroDinoUserWarning
from astrodino_seg.evaluate.matching import match_labels
from astrodino_seg.formats import lsst_table, sextractor_table
from astrodino_seg.image import as_image, write_image, write_label_map
from astrodino_seg.inputs.channels import PreprocessSpec, bin_channels
from astrodino_seg.inputs.rules import NoiseUnits, Photographic, WithNoiseUnits
from astrodino_seg.models import Backbone
from astrodino_seg.models.head import InstanceMaps
from astrodino_seg.models.instance import Model
from astrodino_seg.models.semantic import SemanticModel
from astrodino_seg.simulate import make_scene as make_real_scene
from astrodino_seg.simulate import observe
from astrodino_seg.train import (
    as_labelled,
    fit_head,
    panoptic_quality,
    train_from_config,
)
from astrodino_seg.train.crops import TokenCrop, Window
from astrodino_seg.train.data import ClassCrops, LevelCrops, TokenCrops
from astrodino_seg.train.head import balanced_weights
from astrodino_seg.train.instance import instance_losses
from astrodino_seg.train.losses import (
    CLASS_WEIGHTS,
    class_loss,
    imitation_loss,
)
from astrodino_seg.train.supervised import parameter_groups

QUIET = {'n_items': 1, 'progress': False}


@pytest.fixture(autouse=True)
def one_thread():
    """Sums in one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def discs(n, seed=0, size=64):
    """Images of two discs, and labels: blue ones are stars."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    for _ in range(n):
        image = rng.normal(size=(2, size, size))
        labels = np.zeros((size, size), int)
        classes = {}
        for k, cx in enumerate((16, 48), start=1):
            cy, star = rng.integers(14, size - 14), rng.random() < 0.5
            own = np.hypot(x - cx, y - cy) < 9
            image += np.reshape([40, 8] if star else [8, 40],
                                (2, 1, 1)) * own
            labels[own] = k
            classes[k] = 'star' if star else 'galaxy'
        yield image, labels, classes


def semantic_model(head='linear', planes=None, **kwargs):
    backbone = make_backbone(planes, **{'depth': 4, 'dim': 32, **kwargs})
    torch.manual_seed(4)
    return SemanticModel.from_backbone(backbone, head)


# ------------------------------------------------------------- semantic

@pytest.mark.parametrize(('head', 'planes', 'patch_size'), [
    ('linear', NoiseUnits(), 4), ('ms', NoiseUnits(), 4),
    ('linear', Photographic(), 7)])
def test_semantic_head_learns(tmp_path, head, planes, patch_size):
    """It tells sky, stars and galaxies, in place, with a frozen backbone."""
    model = semantic_model(head, planes, patch_size=patch_size)
    before = {k: v.clone() for k, v in model.vit.state_dict().items()}
    fit_head(model, list(discs(16)), out=tmp_path, n_steps=250,
             peak_rate=0.05, patience=9, crop_size=64, **QUIET)
    for key, value in before.items():
        assert torch.equal(model.vit.state_dict()[key], value)
    finder = DinoSegmenter(model=tmp_path / 'model.safetensors', n_pixels=20)
    confusion, n_found = np.zeros((3, 4), int), 0
    for image, labels, classes in discs(8, seed=9):
        result = finder.segment(image)
        true = np.array([0, *(('star', 'galaxy').index(classes[k]) + 1
                              for k in (1, 2))])[labels]
        np.add.at(confusion, (true, result.class_map), 1)
        n_found += len(match_labels(
            labels, result.segmentation_image.data).iou)
    share = np.diag(confusion) / confusion.sum(axis=1)
    assert (share > 0.6).all(), share
    assert n_found >= 11                # of 16, which do not touch
    log = (tmp_path / 'log.jsonl').read_text().splitlines()
    pq = [one['pq'] for one in map(json.loads, log) if 'pq' in one]
    assert pq[0] < max(pq)
    saved = load_model(tmp_path / 'model.safetensors')
    assert_allclose(saved.provenance['validation_pq'], max(pq), atol=1e-4)
    assert saved.provenance['backbone'] == 'toy'


def test_cached_tokens_are_those_of_the_crops():
    model = semantic_model('ms')
    data = [as_labelled(*next(discs(1, seed=k))[:2]) for k in range(3)]
    crops = ClassCrops(data, NoiseUnits(), 40, crop_size=48, seed=1)
    pool = TokenCrops(model, crops, teacher=model, n_items=2, n_pool=8)
    assert len(pool) == len(crops)
    shapes, original = [], [c for k in range(8) for c in crops[k]]
    for k in range(12):
        for one in pool[k]:
            assert isinstance(one, TokenCrop)
            same = [c for c in original
                    if torch.equal(c.classes, one.classes)]
            scale = one.tokens.shape[1] * 8 / 48
            with torch.no_grad():
                tokens = [model.tokens(c.channels[None], scale)[0]
                          for c in same]
                taught = [model.probabilities(c.channels[None])[0]
                          for c in same]
            off = [(t - one.tokens).abs().max() for t in tokens]
            assert min(off) < 0.01
            best = taught[int(np.argmin(off))]
            assert_allclose(one.taught.float().softmax(0), best, atol=0.01)
        shapes.append(tuple(one.tokens.shape))
    # two items a step, and a scale each step, in turn
    assert shapes == 2 * [(128, n, n) for n in (6, 6, 9, 9, 12, 12)]
    with pytest.raises(ValueError, match='n_pool must be n_items=2 or more'):
        TokenCrops(model, crops, n_items=2, n_pool=1)


def test_backbone_is_trained_by_layer(tmp_path):
    """Deeper layers move less, and the rate of each is as it should be."""
    model = semantic_model()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    fit_head(model, list(discs(4)), out=tmp_path, n_steps=3,
             validation=None, freeze_backbone=False, layer_decay=0.1,
             average_decay=0.0, weight_decay=0.0, crop_size=64, **QUIET)
    moved = {k: float((v - before[k]).abs().max())
             for k, v in model.state_dict().items() if v.is_floating_point()}
    steps = [moved[f'vit.blocks.{k}.mlp.fc1.weight'] for k in range(4)]
    assert_allclose(np.divide(steps[1:], steps[:-1]), 10, rtol=0.1)
    assert 0 < moved['vit.patch_embed.proj.weight'] < 0.2 * steps[0]
    assert moved['head.1.weight'] > 5 * steps[3]
    groups, factors = parameter_groups(model, 0.1)
    assert_allclose(factors, [1, .1, .01, .001, 1e-4, 1e-5])
    assert sum(len(group['params']) for group in groups) == len(
        list(model.parameters()))


# -------------------------------------------------------------- objects

def labelled_scenes(n, first=0):
    """Pairs of an image and its labels."""
    out = []
    for k in range(first, first + n):
        image, truth = observe(make_scene(k), k)
        names = np.array(['sky', 'star', 'galaxy', 'artifact'])
        out.append((image, truth.labels, dict(zip(
            truth.objects['id'].tolist(), names[truth.objects['cls']]))))
    return out


def test_head_of_a_model(tmp_path):
    """The head alone is changed, and the best weights are kept."""
    model = small_model()
    start = {k: v.clone() for k, v in model.state_dict().items()}
    data = labelled_scenes(4)
    fit_head(model, data, out=tmp_path, n_steps=6, validate_every=2,
             validation=data[:1], crop_size=48, **QUIET)
    changed = {k.split('.')[0] for k, v in model.state_dict().items()
               if not torch.equal(v, start[k])}
    assert changed <= {'head'}
    assert model.decision is None
    lines = [json.loads(line) for line in
             (tmp_path / 'log.jsonl').read_text().splitlines()]
    pq = [line['pq'] for line in lines if 'pq' in line]
    assert len(pq) == 3
    first = small_model()
    first.load_state_dict(start)
    held = [as_labelled(*data[0][:2])]
    assert_allclose(model.provenance['validation_pq'],
                    max(*pq, panoptic_quality(first, held)), atol=1e-4)
    assert_allclose(panoptic_quality(model, held),
                    model.provenance['validation_pq'], atol=1e-4)


def test_stops_early_and_goes_on(tmp_path, monkeypatch):
    """The quality decides when it ends, also of a run that was killed."""
    quality = iter([.1, .3, .2, .25, .9])
    monkeypatch.setattr('astrodino_seg.train.labelled.panoptic_quality',
                        lambda model, scenes: next(quality))
    data = [as_labelled(*one[:2]) for one in labelled_scenes(2)]

    def run(**options):
        return fit_head(small_model(), data[:1], **{
            'out': tmp_path, 'n_steps': 20, 'validate_every': 2,
            'patience': 2, 'validation': data[1:], 'crop_size': 48,
            'save_every': 2, 'warmup': 3, **QUIET, **options})

    with killed_at(4), pytest.raises(KeyboardInterrupt):
        run()
    model = run()
    lines = (tmp_path / 'log.jsonl').read_text().splitlines()
    assert [json.loads(line)['step'] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert model.provenance['best_step'] == 2
    assert model.provenance['validation_pq'] == 0.3
    best = run(out=tmp_path / 'two', n_steps=2, validation=None)
    # what is over is not gone on with
    again = run()
    for key, value in best.state_dict().items():
        assert_array_equal(model.state_dict()[key], value)
        assert_array_equal(again.state_dict()[key], value)
    assert len((tmp_path / 'log.jsonl').read_text().splitlines()) == 6


@pytest.mark.parametrize('kind', ['objects', 'semantic'])
def test_resume(tmp_path, kind):
    """A run that was killed ends with the weights of one that was not."""
    def run(name):
        model = small_model() if kind == 'objects' else semantic_model('ms')
        return fit_head(model, labelled_scenes(3), out=tmp_path / name,
                        n_steps=6, save_every=2, crop_size=48,
                        validation=1 / 3, validate_every=3, **QUIET)

    whole = run('whole')
    with killed_at(4), pytest.raises(KeyboardInterrupt):
        run('killed')
    again = run('killed')
    for key, value in whole.state_dict().items():
        assert_array_equal(again.state_dict()[key], value)
    assert again.provenance['validation_pq'] == whole.provenance[
        'validation_pq']


def test_learns_a_disc(tmp_path):
    """A few steps on labelled images of one kind."""
    model = small_model()
    fit_head(model, list(discs(4, size=96)), out=tmp_path, n_steps=60,
             crop_size=64, validation=None, freeze_backbone=False,
             peak_rate=4e-3, n_items=1, progress=False)
    log = [json.loads(line)['mask'] for line in
           (tmp_path / 'log.jsonl').read_text().splitlines()]
    assert np.mean(log[-10:]) < 0.5 * np.mean(log[:5])


def test_panoptic_quality_is_that_of_the_segmenter():
    model = load_model()
    data = labelled_scenes(3)
    for image, *_ in data:          # what no band has is no object's
        image.mask[:, :, 30:60] = True
    data = [as_labelled(*one[:2]) for one in data]
    found = panoptic_quality(model, data)
    total, count = 0, 0
    segmenter = DinoSegmenter(model=model, bfloat16=False)
    for one in data:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', NoDetectionsWarning)
            segm = segmenter(one.image)
        labels = np.zeros(one.image.shape, int) if segm is None else segm.data
        match = match_labels(one.truth.labels, labels)
        total += match.iou.sum()
        count += match.n_truth + match.n_predicted
    assert 0 < found < 1
    assert_allclose(found, 2 * total / count, rtol=1e-6)


# --------------------------------------------------------------- losses

def test_class_loss():
    """Pixel by pixel; of an unknown class the sum over the three counts."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 4, 5, 6))
    classes = rng.integers(-1, 5, (2, 5, 6))
    weights = (1, 3, 2, 5)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    top = norm = 0
    for b, y, x in np.argwhere(classes >= 0):
        c = classes[b, y, x]
        value = 1 - p[b, 0, y, x] if c == 4 else p[b, c, y, x]
        top -= (*weights, 2)[c] * np.log(value)
        norm += (*weights, 2)[c]
    found = class_loss(torch.from_numpy(logits), torch.from_numpy(classes),
                       weights)
    assert_allclose(found, top / norm)
    void = torch.full((2, 5, 6), -1)
    assert class_loss(torch.from_numpy(logits), void) == 0


def test_unknown_classes_of_seeds():
    """Where no class is known, what seeds are called costs nothing."""
    image, labels, _ = next(discs(1))
    crop = LevelCrops([as_labelled(image, labels)], PreprocessSpec(), 1,
                      crop_size=64)[0][0]
    model = small_model()
    maps = model(crop.channels[None], torch.tensor([0]))
    one = InstanceMaps(maps.heat[0], maps.pixels[0],
                       tuple(level[0] for level in maps.pyramid))
    found = instance_losses(model.head, one, crop,
                            torch.Generator().manual_seed(0))
    assert found['seed_class'] == 0
    assert found['classes'] > 0
    assert all(torch.isfinite(value) for value in found.values())


def test_imitation_loss():
    rng = np.random.default_rng(0)
    own, wanted = (torch.from_numpy(rng.normal(size=(2, 4, 5, 6)))
                   for _ in range(2))
    heat, peaks = (torch.from_numpy(rng.normal(size=(2, 1, 3, 3)))
                   for _ in range(2))
    p, q = wanted.softmax(1).numpy(), own.softmax(1).numpy()
    value = (p * np.log(p / q)).sum(axis=1).mean()
    assert_allclose(imitation_loss((own, heat), (wanted,)), value)
    a, b = peaks.sigmoid().numpy(), heat.sigmoid().numpy()
    value += (a * np.log(a / b) + (1 - a) * np.log((1 - a) / (1 - b))).mean()
    assert_allclose(imitation_loss((own, heat), (wanted, peaks)), value)
    assert_allclose(imitation_loss((own, heat), (own, heat)), 0, atol=1e-12)


@pytest.mark.parametrize('freeze', [True, False])
def test_a_teacher_teaches(tmp_path, freeze):
    """Without any label, the student comes to say what the teacher does."""
    teacher = semantic_model()
    fit_head(teacher, list(discs(8)), out=tmp_path / 'a', n_steps=40,
             crop_size=64, validation=None, **QUIET)
    void = [(image, np.full(labels.shape, -1)) for image, labels, _ in
            discs(8)]
    student = semantic_model()
    off = []
    x = torch.from_numpy(NoiseUnits()(as_labelled(*void[0]).image))[None]
    for n_steps in (0, 80):
        if n_steps:
            fit_head(student, void, out=tmp_path / 'b', n_steps=n_steps,
                     crop_size=64, validation=None, teacher=teacher,
                     freeze_backbone=freeze, **QUIET)
        with torch.no_grad():
            off.append((student.probabilities(x) - teacher.probabilities(x))
                       .abs().mean().item())
    assert off[1] < 0.4 * off[0]


def test_a_model_is_taught(tmp_path):
    """The classes and the heatmap of another, where nothing is labelled."""
    teacher, student = small_model(1), small_model(2)
    torch.nn.init.normal_(teacher.head.pixel.weight)
    student.vit.load_state_dict(teacher.vit.state_dict())
    void = [(image, np.full(labels.shape, -1)) for image, labels, _ in
            discs(4, size=96)]
    fit_head(student, void, out=tmp_path, n_steps=40, crop_size=64,
             validation=None, teacher=teacher, peak_rate=1e-2, **QUIET)
    log = [json.loads(line)['teacher'] for line in
           (tmp_path / 'log.jsonl').read_text().splitlines()]
    assert np.mean(log[-8:]) < 0.5 * np.mean(log[:4])


def test_balanced_weights():
    labels = np.zeros((32, 32), int)
    labels[:8, :8], labels[20:26, 20:26], labels[:, 30:] = 1, 2, -1
    one = as_labelled(np.random.default_rng(0).normal(size=(32, 32)), labels,
                      classes={1: 'galaxy', 2: 'star'})
    n_sky = (labels == 0).sum()
    assert_allclose(balanced_weights([one, one]),
                    [1, (n_sky / 36)**0.5, (n_sky / 64)**0.5, 10])
    assert balanced_weights([make_scene(0)]) == CLASS_WEIGHTS
    none = as_labelled(one.image, labels)
    assert balanced_weights([none]) == CLASS_WEIGHTS


def test_model_by_its_name(tmp_path):
    """A file, as DinoSegmenter takes it, is the model that it holds."""
    model = semantic_model()
    model.save(tmp_path / 'semantic.safetensors')
    options = {'n_steps': 1, 'crop_size': 48, 'validation': None, **QUIET}
    one, other = (fit_head(given, labelled_scenes(1), out=tmp_path / out,
                           **options) for given, out in (
        (model, 'a'), (tmp_path / 'semantic.safetensors', 'b')))
    for key, value in one.state_dict().items():
        assert_array_equal(other.state_dict()[key], value)
    with pytest.raises(FileNotFoundError, match="no weights file 'none'"):
        fit_head('none', labelled_scenes(1), out=tmp_path / 'c', **options)


def test_labels_without_classes(tmp_path):
    """A new semantic head tells objects; a trained one learns no classes."""
    pairs = [one[:2] for one in labelled_scenes(2)]
    options = {'n_steps': 1, 'crop_size': 48, 'validation': None, **QUIET}
    model = fit_head(semantic_model(), pairs, out=tmp_path / 'a', **options)
    assert model.classes == ('sky', 'object')
    model.take_classes(['star', 'galaxy', 'artifact'])
    with pytest.warns(AstroDinoUserWarning, match='no label has a class'):
        fit_head(model, pairs, out=tmp_path / 'b', **options)
    assert model.classes == ('sky', 'star', 'galaxy', 'artifact')
    fit_head(small_model(), pairs, out=tmp_path / 'c', **options)


def test_classes_of_ones_own(tmp_path):
    """Their names go through model, table, maps, edits and figures."""
    def data(n, seed):
        for image, labels, classes in discs(n, seed=seed):
            yield image, labels, {
                k: 'red' if name == 'galaxy' else 'blue.1'
                for k, name in classes.items()}

    names = ('blue.1', 'red')
    model = fit_head(semantic_model(patch_size=4), list(data(16, 0)),
                     out=tmp_path, class_names=names, n_steps=250,
                     peak_rate=0.05, validation=None, crop_size=64, **QUIET)
    assert model.classes == ('sky', *names)
    finder = DinoSegmenter(model=tmp_path / 'model.safetensors', n_pixels=20)
    n_right = n_wrong = 0
    for image, labels, classes in data(6, 9):
        result = finder.segment(image)
        assert result.class_names == ('sky', *names)
        assert result.probabilities.shape == (3, 64, 64)
        assert result.class_map.max() <= 2
        table = result.table
        assert 'p_star' not in table.colnames
        assert_allclose(table['p_blue.1'] + table['p_red'], 1, atol=1e-6)
        found = match_labels(labels, result.segmentation_image.data)
        for t, p in zip(found.truth.tolist(), found.predicted.tolist()):
            right = table['class'][p - 1] == classes[t]
            n_right, n_wrong = n_right + right, n_wrong + (not right)
    assert n_right > 4 * n_wrong
    edited = result.edit(reclassify={1: 'blue.1'})
    assert edited.table['class'][0] == 'blue.1'
    assert edited.table['p_red'][0] == 0
    with pytest.raises(ValueError, match=r'a class: one of blue\.1, red'):
        result.edit(reclassify={1: 'star'})
    result.report(tmp_path / 'report.html')
    assert '"blue.1": [' in (tmp_path / 'report.html').read_text()
    assert 'CLASS_STAR' not in sextractor_table(result).colnames
    assert len(lsst_table(result)) >= len(result.table)
    # images that know their classes, and a model that goes on
    again = [as_labelled(*one[:2], classes=one[2], class_names=names)
             for one in data(2, 3)]
    fit_head(model, again, out=tmp_path / 'on', n_steps=1, validation=None,
             crop_size=64, **QUIET)
    assert model.classes == ('sky', *names)
    with pytest.raises(ValueError, match='a grouping head tells'):
        fit_head(small_model(), again, out=tmp_path / 'no', n_steps=1,
                 validation=None, crop_size=64, **QUIET)
    with pytest.raises(ValueError, match=r'classes\[1\] must be one of '):
        as_labelled(again[0].image, again[0].truth.labels, classes={
            1: 'red'})


@pytest.mark.parametrize('names', [[], ['a', 'a'], ['sky', 'a'], ['a b'],
                                   [3], 'x' * 41])
def test_names_of_classes(names):
    with pytest.raises(ValueError, match='classes must be different names'):
        SemanticModel.from_backbone(make_backbone(), classes=names)


@pytest.mark.parametrize(('change', 'match'), [
    ({'labels': True}, r'data\.sha256 was'), ({'seed': 4}, 'seed was 3, is 4'),
    ({'peak_rate': 1e-3}, r'peak_rate was 0\.01, is 0\.001'),
    ({'classes': True}, r'data\.sha256 was'),
    ({'n_steps': 3}, 'n_steps was 2, is 3')])
def test_of_another_run(tmp_path, change, match):
    """What is in the folder is not returned for what was asked for."""
    def run(labels=False, classes=False, **options):
        data = [list(one) for one in labelled_scenes(2)]
        if labels:
            data[1][1] = np.where(data[1][1] == 1, 0, data[1][1])
        if classes:
            data[1][2] = 'star'
        return fit_head(semantic_model(), [tuple(one) for one in data],
                        out=tmp_path, crop_size=48, validation=None, **{
                            'n_steps': 2, 'seed': 3, **QUIET, **options})

    first = run()
    with pytest.raises(ValueError, match=f'another run; .*{match}'):
        run(**change)
    for key, value in run().state_dict().items():   # the same: nothing to do
        assert_array_equal(first.state_dict()[key], value)


# --------------------------------------------------------------- refusals

@pytest.mark.parametrize(('change', 'error', 'match'), [
    ({'data': 3}, TypeError, 'data must be a sequence, got int'),
    ({'data': [3]}, TypeError, r'data\[0\]: must be a pair'),
    ({'data': [(np.zeros((64, 64)), np.zeros((64, 63), int))]}, ValueError,
     r'data\[0\]: labels must have the shape'),
    ({'data': [next(discs(1))]}, ValueError, 'no image is left to train on'),
    ({'validation': 1.5}, ValueError, r'validation must be in \(0, 1\)'),
    ({'validation': [4]}, TypeError, r'validation\[0\]: must be a pair'),
    ({'class_weights': 'equal'}, ValueError, "'balanced' or a number for"),
    ({'teacher': 'own'}, ValueError, 'teacher must have the input NoiseUn')])
def test_refused(tmp_path, change, error, match):
    if 'teacher' in change:
        change = {'teacher': semantic_model(planes=Photographic())}
    with pytest.raises(error, match=match):
        fit_head(small_model(), **{
            'data': list(discs(2)), 'out': tmp_path / 'run', 'n_steps': 1,
            **change})
    assert not (tmp_path / 'run' / 'model.safetensors').exists()


# ----------------------------------------------------------------- recipes

@pytest.fixture
def files(tmp_path):
    """Labelled images on disk, and a backbone of a few parameters."""
    tables = []
    for k, (image, labels, classes) in enumerate(discs(3)):
        image = as_image(image, bands=('g', 'r'))
        write_image(tmp_path / f'{k}.fits', image)
        write_label_map(tmp_path / f'{k}_segm.fits', labels, image)
        Table({'label': list(classes), 'class': list(classes.values())}).write(
            tmp_path / f'{k}.ecsv')
        tables.append({'image': str(tmp_path / f'{k}.fits'),
                       'labels': str(tmp_path / f'{k}_segm.fits'),
                       'classes': str(tmp_path / f'{k}.ecsv')})
    semantic_model().save(tmp_path / 'semantic.safetensors')
    small_model().save(tmp_path / 'grouping.safetensors')
    Backbone.from_spec(vit=SMALL['vit']).save(tmp_path / 'encoder.safetensors')
    return tables, tmp_path


HEAD = {'n_steps': 2, 'crop_size': 64, 'seed': 3, 'threads': 1, **QUIET}


@pytest.mark.parametrize('table', [
    {'start': 'grouping.safetensors'}, {'start': 'semantic.safetensors'},
    {'backbone': 'grouping.safetensors', 'head': 'linear'},
    {'backbone': 'semantic.safetensors', 'head': 'ms', 'scales': [1, 2]},
    {'backbone': 'encoder.safetensors', 'head': SMALL['head']},
], ids=lambda table: '-'.join(map(str, table.values())))
def test_recipe(files, table):
    """From files to a file, as the recipe says; twice the same."""
    images, path = files
    table = {k: str(path / v) if k in ('start', 'backbone') else v
             for k, v in table.items()}
    config = {'model': table, 'images': images, 'head': HEAD}
    before = json.dumps(config)
    one = train_from_config(config, path / 'a')
    two = train_from_config(config, path / 'b')
    assert json.dumps(config) == before
    saved = load_model(path / 'a' / 'model.safetensors')
    for key, value in one.state_dict().items():
        assert_array_equal(two.state_dict()[key], value)
        assert_array_equal(saved.state_dict()[key], value)
    assert isinstance(one, SemanticModel if table.get('head') in (
        'linear', 'ms') or 'semantic' in table.get('start', '') else Model)
    if 'scales' in table:
        assert saved.scales == (1.0, 2.0)


def test_model_on_planes_of_its_own(files):
    """A grouping head on a backbone that was trained on photographs."""
    images, path = files
    semantic_model(planes=Photographic(), patch_size=8).save(
        path / 'photographic.safetensors')
    model = train_from_config({
        'model': {'backbone': str(path / 'photographic.safetensors'),
                  'head': SMALL['head']},
        'images': images, 'head': {**HEAD, 'freeze_backbone': False}},
        path / 'run')
    saved = load_model(path / 'run' / 'model.safetensors')
    assert saved.planes == model.planes == WithNoiseUnits(Photographic())
    rule = model.planes
    image = as_image(next(discs(1, size=96))[0])
    labels = np.zeros((96, 96), int)
    plain, binned = LevelCrops([as_labelled(image, labels)], rule, 1,
                               crop_size=96)[0]
    for crop, wanted in ((plain, rule(image)), (
            binned, bin_channels(rule(image), 2,
                                 model.preprocess.n_channels))):
        found = crop.channels.numpy()
        assert any(np.array_equal(Window((0, 0), len(found[0]), k).cut(wanted),
                                  found) for k in range(8))


def test_recipe_with_scenes(files):
    pytest.importorskip('galsim')
    _, path = files
    model = train_from_config(
        {'model': {'backbone': str(path / 'encoder.safetensors'),
                   'head': 'linear'},
         'scenes': {'n_scenes': 2, 'size': 64}, 'head': HEAD}, path / 'c')
    assert isinstance(model, SemanticModel)


@pytest.mark.parametrize(('change', 'match'), [
    ({'scenes': {'n_scenes': 2}}, "config has both 'scenes' and 'images'"),
    ({'fit': {}}, "config has both 'fit' and 'head'"),
    ({'decision': {}}, 'decision: n_scenes must be 10 or more, got 2'),
    ({'decision': {}, 'model': {'backbone': 'backbone_tiny',
                                'head': 'linear'}},
     'decision: a semantic model has none'),
    ({'head': {'colour': 1}}, r"head has unknown keys \['colour'\]"),
    ({'images': [{'image': 'a', 'label': 'b'}]},
     r"images\[0\] has unknown keys \['label'\]"),
    ({'images': [{'image': np.zeros((4, 4))}]}, r'images\[0\]: .*labels'),
    ({'model': {'start': 'grouping_tiny', 'head': 'ms'}},
     "model has start='grouping_tiny' and"),
    ({'model': {'backbone': 'backbone_tiny', 'head': 'big'}},
     r"head must be one of \['grouping', 'linear', 'ms'\] or a table, got 'b"),
    ({'model': {'backbone': 'backbone_tiny', 'head': {'width': [4]}}},
     r"model.head has unknown keys \['width'\]; known are .*'widths'\]"),
    ({'model': {'backbone': 'backbone_tiny', 'head': 3}},
     'head must be one of .* got 3'),
    ({'model': {'backbone': 'backbone_tiny', 'scales': [1]}},
     r"model has unknown keys \['scales'\]"),
    ({'model': {'head': 'linear'}}, "head='linear' needs a backbone")])
def test_bad_recipe(files, change, match):
    images, path = files
    config = {'model': {'start': str(path / 'grouping.safetensors')},
              'images': images, 'head': HEAD, **change}
    with pytest.raises(ValueError, match=match):
        train_from_config(config, path / 'run')
    assert not (path / 'run').exists()


# ------------------------------------------------------------- end to end

def new_instrument(n, first):
    """Scenes of an infrared camera with a wide PSF, observed briefly."""
    names = np.array(['sky', 'star', 'galaxy', 'artifact'])
    for seed in range(first, first + n):
        scene = make_real_scene(seed, size=192, band_set='jwst',
                                psf_fwhm=7.5, density=4.0)
        image, truth = observe(scene, seed, depth=0.4)
        yield image, truth.labels, dict(zip(truth.objects['id'].tolist(),
                                            names[truth.objects['cls']]))


@pytest.mark.slow
def test_ten_scenes_of_a_new_instrument(tmp_path):
    """The bundled model is better on others of that instrument."""
    pytest.importorskip('galsim')
    held_out = [as_labelled(image, labels) for image, labels, _ in
                new_instrument(10, 1_070_000)]
    model = load_model('grouping_tiny')
    before = panoptic_quality(model, held_out)
    fit_head(model, list(new_instrument(10, 1_071_000)), out=tmp_path,
             n_steps=50, crop_size=160, validate_every=25, progress=False)
    assert panoptic_quality(model, held_out) > before + 0.03
