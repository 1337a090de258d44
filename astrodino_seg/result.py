# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
`SegmentationResult`: what was found in an image, to look at, edit and report.
"""

from dataclasses import dataclass

import numpy as np
from astropy.table import QTable, Table
from photutils.segmentation import SegmentationImage

from astrodino_seg.catalog import make_table
from astrodino_seg.image import Image
from astrodino_seg.models.decision import Totals
from astrodino_seg.truth import CLASSES


@dataclass(frozen=True, repr=False)
class SegmentationResult:
    """
    All that `DinoSegmenter.segment` finds.

    Attributes
    ----------
    segmentation_image : `~photutils.segmentation.SegmentationImage`
        One label a physical object, consecutive from 1.
    fragments : `~photutils.segmentation.SegmentationImage`
        The pieces that the objects were put together from. An object of one
        piece has the same label here; ``deblended_label_to_parent`` and
        ``parent_to_deblended_labels`` tell the objects of the others.
    class_map : `~numpy.ndarray`
        (y, x) uint8, pixel by pixel: an index into ``class_names``.
    probabilities : `~numpy.ndarray`
        (class, y, x) float32 probabilities of those classes.
    table : `~astropy.table.QTable`
        One row a label; see `~astrodino_seg.catalog.make_table`.
    image : `~astrodino_seg.Image`
        What was segmented: all bands on one pixel grid.
    background, noise : `~numpy.ndarray`
        (band, y, x) background and 1-sigma noise that were used, in the
        image's unit. The noise is infinite in invalid pixels.
    noise_correlation : `~numpy.ndarray`
        (band, n) by how much the noise of the sum over a square exceeds that
        of independent pixels; the sides of the squares are
        `~astrodino_seg.inputs.background.SIDES`.
    totals : `~astrodino_seg.models.decision.Totals` or None
        The part of the model that tells total fluxes.
    edits : `~astropy.table.Table` or None
        What was edited since the segmentation, in order: text columns
        ``action``, ``labels``, ``x``, ``y``, ``ra``, ``dec`` and ``class``;
        see `edit`.
    class_names : tuple of str
        Sky, star, galaxy and artifact, or what else the model tells; the
        first is that of no object.
    parent : `SegmentationResult` or None
        The result before the last call of `edit`, which is how to undo it.
    """

    segmentation_image: SegmentationImage
    fragments: SegmentationImage
    class_map: np.ndarray
    probabilities: np.ndarray
    table: QTable
    image: Image
    background: np.ndarray
    noise: np.ndarray
    noise_correlation: np.ndarray
    totals: Totals | None = None
    edits: Table | None = None
    class_names: tuple = CLASSES
    parent: 'SegmentationResult | None' = None

    def __repr__(self):
        return f'<SegmentationResult: {len(self.table)} objects; {self.image}>'

    def edit(self, edits=None, **actions):
        """
        Change labels by hand; all that follows from them is made anew.

        Parameters
        ----------
        edits : path-like, `~astropy.table.Table`, `~regions.Regions` or list \
                of `~regions.Region`, optional
            A table (of a file, CSV, ECSV or FITS) with the columns ``action``,
            ``labels``, ``x``, ``y``, ``ra``, ``dec`` and ``class``, all but
            the first optional; or regions (of a file, ``.reg``). The
            documentation, "Labels edited by hand", says what they mean.
        **actions
            Or some of these, in their order:

            ``merge=[3, 7]``
                Labels that are one object; a list of lists for several.
            ``split=3`` or ``split={3: points}``
                An object to cut into its fragments; or along the valleys of
                light between two or more points (x, y) in it.
            ``cut={3: (point, point)}``
                The same along the straight line through two points.
            ``reclassify={3: 'star'}``
                The class, one of ``class_names`` but the first.
            ``delete=3``
                A label or a list of them that are nothing.
            ``draw=polygon`` or ``draw={'galaxy': polygon}``
                A new object within corners (x, y), whatever was there. Its
                class is what the network says of its pixels if not given.

            Points can be a `~astropy.coordinates.SkyCoord`.

        Returns
        -------
        result : `SegmentationResult`
            The edited one, with labels consecutive from 1 again. Labels that
            were changed have the flag ``edited``.

        Raises
        ------
        ValueError
            If an edit cannot be understood, names no label, or nothing would
            be left.

        Warns
        -----
        AstroDinoUserWarning
            For each edit that finds nothing at its position and is left out.
        """
        from astrodino_seg.draft import edit_result  # slow to import

        return edit_result(self, edits, actions)

    def report(self, path, *, others=None, title='Segmentation', lines=()):
        """
        Write one HTML page to look at: image, labels, table, no network.

        Parameters
        ----------
        path : path-like
            The file, which is replaced if it exists.
        others : dict of str to array_like, optional
            (y, x) label maps of other tools by name, to blink with. An entry
            that is `None`, of a tool that found nothing, is left out.
        title : str, optional
            What stands above.
        lines : sequence of str, optional
            What is told of how the labels were made.

        Raises
        ------
        ValueError
            If a label map has another shape than the image.
        """
        from astrodino_seg.report import report_result  # slow to import

        report_result(self, path, others=others or {}, title=title,
                      lines=lines)


def result_of(image, normalised, found, model):
    """
    The result of an image, its `~astrodino_seg.inputs.channels.Normalised`
    and `~astrodino_seg.predict.instances.Instances`; `None` if these are none.
    """
    grouping = found.grouping
    if len(grouping.seed_of) == 0:
        return None
    objects, fragments = grouping.images()
    return SegmentationResult(
        segmentation_image=objects, fragments=fragments,
        class_map=found.probabilities.argmax(0).astype(np.uint8),
        probabilities=found.probabilities,
        table=make_table(image, normalised, grouping, found.classes,
                         model.totals, model.classes[1:]),
        image=image, background=normalised.background,
        noise=normalised.noise, noise_correlation=normalised.correlation,
        totals=model.totals, class_names=model.classes)
