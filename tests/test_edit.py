# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for labels that are edited by hand.
"""

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import Table
from helpers import blobs
from numpy.testing import assert_allclose, assert_array_equal
from photutils.segmentation import SourceCatalog
from regions import (
    CirclePixelRegion,
    LinePixelRegion,
    PixCoord,
    PointPixelRegion,
    PolygonPixelRegion,
    Regions,
)

from astrodino_seg import DinoSegmenter
from astrodino_seg.catalog import FLAGS
from astrodino_seg.errors import AstroDinoUserWarning
from astrodino_seg.image import write_label_map
from astrodino_seg.train import as_labelled, fit_head

SQUARE = [(49.6, 1.6), (58.4, 1.6), (58.4, 9.4), (49.6, 9.4)]


@pytest.fixture(scope='module')
def result():
    return DinoSegmenter().segment(blobs(slice(6, 102), slice(8, 104)))


def labels_of(result):
    return result.segmentation_image.data


def pair(result):
    """Two objects that touch, the largest ones."""
    labels, area = labels_of(result), result.segmentation_image.areas
    found = set()
    for one, other in ((labels[1:], labels[:-1]),
                       (labels[:, 1:], labels[:, :-1])):
        both = (one != other) & (one > 0) & (other > 0)
        found |= {tuple(sorted(two)) for two in zip(one[both].tolist(),
                                                    other[both].tolist())}
    return max(found, key=lambda two: min(area[k - 1] for k in two))


def largest(result):
    return int(result.segmentation_image.areas.argmax()) + 1


def peaks(result, label, n=2):
    """Pixels of a label that are far from each other."""
    y, x = np.nonzero(labels_of(result) == label)
    order = np.argsort(x)[[2, -3]]
    return [(float(x[k]), float(y[k])) for k in order[:n]]


def check(result):
    """All parts of a result tell of the same objects."""
    segm, table = result.segmentation_image, result.table
    assert_array_equal(segm.labels, np.arange(1, len(table) + 1))
    assert_array_equal(table['label'], segm.labels)
    assert_array_equal(table['area'].value, segm.areas)
    for b, band in enumerate(result.image.bands):
        catalog = SourceCatalog((result.image.cube[b] - result.background[b]
                                 ).astype(float), segm)
        assert_allclose(table[f'flux_{band}'], catalog.segment_flux,
                        rtol=1e-4, atol=0.02)
    parts = result.fragments
    assert_array_equal(parts.data > 0, segm.data > 0)
    children = parts.parent_to_deblended_labels
    for label, n in zip(table['label'], table['n_fragments']):
        inside = np.unique(parts.data[segm.data == label])
        assert len(inside) == n
        assert_array_equal(inside, np.sort(children.get(label, [label])))
    assert_array_equal(result.class_map, result.probabilities.argmax(0))


def flagged(result):
    return result.table['label'][
        result.table['flags'] & FLAGS['edited'] > 0].tolist()


def test_no_edit_changes_nothing(result):
    """The table is made anew by what made it, to the last digit."""
    again = result.edit([])
    assert again.table.colnames == result.table.colnames
    for name in result.table.colnames:
        if name != 'sky_centroid':
            assert_array_equal(again.table[name], result.table[name])
    assert_array_equal(labels_of(again), labels_of(result))
    assert_array_equal(again.fragments.data, result.fragments.data)
    assert (again.fragments.parent_to_deblended_labels.keys()
            == result.fragments.parent_to_deblended_labels.keys())
    assert again.edits is None
    assert again.parent is result


def test_merge(result):
    one, other = pair(result)
    edited = result.edit(merge=[one, other])
    check(edited)
    n = len(result.table)
    assert len(edited.table) == n - 1
    both = np.isin(labels_of(result), [one, other])
    assert_array_equal(labels_of(edited) == one, both)
    assert flagged(edited) == [one]
    row, old = edited.table[one - 1], result.table
    assert row['group_confidence'] == 1
    assert_allclose(row['flux_r'], old['flux_r'][[one - 1, other - 1]].sum(),
                    rtol=1e-5)
    assert row['class'] == old['class'][max(
        one, other, key=lambda k: old['area'][k - 1].value) - 1]
    # undone by what it was made of, which is as it was
    assert edited.parent is result
    assert len(result.table) == n


def test_split_into_fragments_and_back(result):
    one, other = pair(result)
    merged = result.edit(merge=[one, other])
    apart = merged.edit(split=one)
    check(apart)
    assert len(apart.table) >= len(result.table)
    n_pieces = merged.table['n_fragments'][one - 1]
    assert len(apart.table) == len(merged.table) + n_pieces - 1
    assert [row['action'] for row in apart.edits] == ['merge', 'split']


def test_split_at_points(result):
    label = largest(result)
    left, right = peaks(result, label)
    edited = result.edit(split={label: [left, right]})
    check(edited)
    assert len(edited.table) == len(result.table) + 1
    labels = labels_of(edited)
    parts = [labels[int(y), int(x)] for x, y in (left, right)]
    assert parts[0] != parts[1]
    assert set(flagged(edited)) == set(parts)
    assert_array_equal(np.isin(labels, parts), labels_of(result) == label)
    with pytest.raises(ValueError, match='two points or more in different'):
        result.edit(split={label: [left, (0, 0)]})


def test_split_follows_the_valley():
    """Two peaks are parted where there is least light between them."""
    y, x = np.indices((64, 64))
    light = sum(300 * np.exp(-((x - x0)**2 + (y - 32)**2) / 2 / s**2)
                for x0, s in ((24, 3.5), (40, 2)))
    rng = np.random.default_rng(3)
    one = DinoSegmenter().segment(light + rng.normal(size=light.shape),
                                  error=1.0, background='none')
    whole = one.edit(draw={'galaxy': [(10, 10), (55, 10), (55, 55),
                                      (10, 55)]})
    label = int(labels_of(whole)[32, 24])
    apart = labels_of(whole.edit(split={label: [(24, 32), (40, 32)]}))
    row = apart[32, 24:41]
    valley = int(np.argmin(light[32, 24:41]))
    assert abs(int((row == row[0]).sum()) - valley) <= 2


def test_cut(result):
    label = largest(result)
    y, x = np.nonzero(labels_of(result) == label)
    middle = np.median(x) + 0.5
    edited = result.edit(cut={label: [(middle, 0), (middle, 9)]})
    check(edited)
    left = (labels_of(result) == label) & (
        np.indices(labels_of(result).shape)[1] < middle)
    part = labels_of(edited)[left]
    assert len(np.unique(part)) == 1
    assert_array_equal(labels_of(edited) == part[0], left)
    # without a label, it is of the object that it lies on
    again = result.edit(LinePixelRegion(PixCoord(middle, y.min()),
                                        PixCoord(middle, y.max())))
    assert_array_equal(labels_of(again), labels_of(edited))


def test_reclassify(result):
    label = largest(result)
    edited = result.edit(reclassify={label: 'artifact'})
    check(edited)
    assert edited.table['class'][label - 1] == 'artifact'
    assert edited.table['p_artifact'][label - 1] == 1
    assert flagged(edited) == [label]
    own = labels_of(result) == label
    assert (edited.class_map[own] == 3).all()
    assert_array_equal(edited.class_map[~own], result.class_map[~own])
    assert_array_equal(labels_of(edited), labels_of(result))
    assert result.table['class'][label - 1] != 'artifact'


def test_delete(result):
    label = largest(result)
    own = labels_of(result) == label
    edited = result.edit(delete=label)
    check(edited)
    assert not labels_of(edited)[own].any()
    assert (edited.class_map[own] == 0).all()
    assert len(edited.table) == len(result.table) - 1
    with pytest.raises(ValueError, match='no object would be left'):
        result.edit(delete=result.table['label'].tolist())


def test_draw(result):
    edited = result.edit(draw={'galaxy': SQUARE})
    check(edited)
    new = labels_of(edited)[5, 54]
    expected = np.zeros(labels_of(result).shape, bool)
    expected[2:10, 50:59] = True
    assert_array_equal(labels_of(edited) == new, expected)
    assert edited.table['class'][new - 1] == 'galaxy'
    # who lost pixels to it is changed, too
    lost = set(np.unique(labels_of(result)[expected])) - {0}
    assert len(flagged(edited)) <= 1 + len(lost)
    plain = result.edit(draw=SQUARE)
    assert_array_equal(labels_of(plain), labels_of(edited))
    assert_array_equal(plain.probabilities, result.probabilities)


def test_labels_of_a_list_are_those_of_the_first_map(result, tmp_path):
    """Numbers do not move while a table is worked through."""
    one, other = pair(result)
    last = len(result.table)
    third = next(k for k in range(last, 0, -1) if k not in (one, other))
    path = tmp_path / 'edits.csv'
    path.write_text('action,labels,x,y,class\n'
                    f'merge,{one} {other},,,\n'
                    f'reclassify,{other},,,star\n'
                    f'delete,{third},,,\n'
                    'draw,,50 58 58 50,2 2 9 9,artifact\n')
    edited = result.edit(path)
    check(edited)
    assert edited.table['class'][one - 1] == 'star'
    assert not labels_of(edited)[labels_of(result) == third].all()
    assert edited.table['class'][-1] == 'artifact'
    assert edited.edits['labels'].tolist() == [
        f'{one} {other}', f'{other}', f'{third}', '']


@pytest.mark.parametrize('ending', ['csv', 'ecsv'])
def test_applied_again(result, tmp_path, ending):
    """By position on the sky, to other pixels with other numbers."""
    one, other = pair(result)
    edited = result.edit(merge=[one, other]).edit(draw={'star': SQUARE})
    edited = edited.edit(delete=int(labels_of(edited)[12, 10]))     # a star
    path = tmp_path / f'edits.{ending}'
    edited.edits.write(path)
    again = result.edit(path)
    assert_array_equal(labels_of(again), labels_of(edited))
    assert again.edits.pformat() == edited.edits.pformat()
    # a re-run of more of the sky
    part = DinoSegmenter().segment(blobs())
    moved = part.edit(path)
    check(moved)
    labels = labels_of(moved)[6:, 8:]
    assert moved.table['class'][labels[5, 54] - 1] == 'star'
    x, y = (np.array(edited.edits[name][0].split(), float).astype(int)
            for name in ('x', 'y'))
    assert labels_of(part)[6:, 8:][y[0], x[0]] != (
        labels_of(part)[6:, 8:][y[1], x[1]])
    assert labels[y[0], x[0]] == labels[y[1], x[1]] > 0


def test_unmatched_is_said(result):
    empty = np.argwhere(labels_of(result) == 0)[0]
    edits = Table({'action': ['delete', 'reclassify'],
                   'labels': ['', '1'],
                   'x': [str(empty[1]), ''], 'y': [str(empty[0]), ''],
                   'class': ['', 'star']})
    with pytest.warns(AstroDinoUserWarning, match=(
            f"^edit 'delete x {empty[1]}.00 y {empty[0]}.00': there is no "
            'object at .*; it is left out$')):
        edited = result.edit(edits)
    assert edited.edits['action'].tolist() == ['reclassify']
    with pytest.warns(AstroDinoUserWarning, match='gone by an edit before'):
        result.edit(Table({'action': ['delete', 'delete'], 'labels': [1, 1]}))


@pytest.mark.parametrize(('edits', 'match'), [
    ({'action': ['melt']}, "'melt' needs an action: one of merge"),
    ({'action': ['merge'], 'labels': ['3']}, 'two labels'),
    ({'action': ['delete'], 'labels': ['three']}, "'delete three': invalid"),
    ({'action': ['reclassify'], 'labels': [1]}, 'needs a class'),
    ({'action': ['reclassify'], 'labels': [1], 'class': ['quasar']},
     'one of star, galaxy, artifact'),
    ({'action': ['cut'], 'labels': [1]}, 'two points of a line'),
    ({'action': ['draw'], 'x': ['1 2'], 'y': ['3 4']}, 'three corners'),
    ({'action': ['delete'], 'labels': [9999]}, 'there is no label 9999'),
    ({'kind': ['delete']}, 'no column action')])
def test_malformed(result, edits, match):
    with pytest.raises(ValueError, match=match):
        result.edit(Table(edits))


def test_wrong_arguments(result):
    with pytest.raises(TypeError, match="no argument 'join'"):
        result.edit(join=[1, 2])
    with pytest.raises(TypeError, match='must be a path, a Table or regions'):
        result.edit(3)
    with pytest.raises(TypeError, match='labels must be int'):
        result.edit(delete='one')


def test_regions(result, tmp_path):
    """As drawn in ds9, on the sky."""
    one, other = pair(result)
    wcs = result.image.wcs

    def point(label, text):
        y, x = np.argwhere(labels_of(result) == label)[0]
        return PointPixelRegion(PixCoord(x, y), meta={'text': text})

    rest = [k for k in range(1, len(result.table) + 1)
            if k not in (one, other)]
    regions = [point(one, 'merge a'), point(other, 'merge a'),
               point(rest[0], 'delete'), point(rest[1], 'artifact'),
               PolygonPixelRegion(PixCoord(*np.transpose(SQUARE)),
                                  meta={'text': 'galaxy'})]
    path = tmp_path / 'edits.reg'
    Regions([region.to_sky(wcs) for region in regions]).write(
        path, format='ds9')
    edited = result.edit(path)
    check(edited)
    same = result.edit(draw={'galaxy': SQUARE}).edit(merge=[one, other])
    assert len(edited.table) == len(same.table) - 1
    assert edited.table['class'].tolist().count('artifact') >= 1
    again = result.edit(regions)
    assert_array_equal(labels_of(again), labels_of(edited))


def test_regions_of_points(result):
    """The points in one object are its parts; one alone parts fragments."""
    label = largest(result)
    points = [PointPixelRegion(PixCoord(*one), meta={'text': 'split'})
              for one in peaks(result, label)]
    assert_array_equal(labels_of(result.edit(points)), labels_of(
        result.edit(split={label: peaks(result, label)})))
    merged = result.edit(merge=pair(result))
    whole = int(np.argmax(merged.table['n_fragments'])) + 1
    point = PointPixelRegion(PixCoord(*peaks(merged, whole)[0]),
                             meta={'text': 'split'})
    assert_array_equal(labels_of(merged.edit(point)),
                       labels_of(merged.edit(split=whole)))


def test_regions_of_areas(result):
    """An area acts on the objects whose centres are in it."""
    ny, nx = labels_of(result).shape
    everything = CirclePixelRegion(PixCoord(nx / 2, ny / 2), 2 * nx,
                                   meta={'text': 'merge star'})
    edited = result.edit(everything)
    assert edited.table['class'].tolist() == ['star']
    with pytest.raises(ValueError, match='text of a region must be'):
        result.edit(CirclePixelRegion(PixCoord(9, 9), 4,
                                      meta={'text': 'NGC 1'}))
    # a label of ours, as of a file of products, is none
    ours = CirclePixelRegion(PixCoord(9, 9), 4, meta={'text': '12 galaxy'})
    assert result.edit(ours).edits is None


def test_points_on_the_sky(result):
    label = largest(result)
    points = peaks(result, label)
    sky = result.image.sky(*np.transpose(points))
    assert isinstance(sky, SkyCoord)
    assert_array_equal(labels_of(result.edit(split={label: sky})),
                       labels_of(result.edit(split={label: points})))


def test_edited_labels_train_a_head(result, tmp_path):
    """Written as a file, they are labels that fit_head takes."""
    one, other = pair(result)
    edited = result.edit(merge=[one, other], reclassify={one: 'star'})
    path = tmp_path / 'labels.fits'
    write_label_map(path, edited.segmentation_image, edited.image)
    known = as_labelled(edited.image, path, classes=edited.table)
    assert_array_equal(known.truth.labels, labels_of(edited))
    assert known.truth.objects['cls'][one - 1] == 1


@pytest.mark.slow
def test_head_of_edited_labels(result, tmp_path):
    edited = result.edit(reclassify={1: 'star'})
    path = tmp_path / 'labels.fits'
    write_label_map(path, edited.segmentation_image, edited.image)
    fit_head('linear_tiny', [(edited.image, path, edited.table)], n_steps=1,
             out=tmp_path / 'run', crop_size=32, validation=None)
    assert (tmp_path / 'run' / 'model.safetensors').exists()
