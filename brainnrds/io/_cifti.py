"""CIFTI images: a header of megabytes is parsed, or made, once for all that have the same."""

import re
import threading
from functools import lru_cache

from nibabel.arrayproxy import reshape_dataobj
from nibabel.cifti2 import (
    BrainModelAxis,
    Cifti2Header,
    Cifti2Image,
    Cifti2Matrix,
    Cifti2MatrixIndicesMap,
)
from nibabel.cifti2.parse_cifti2 import Cifti2Extension, Cifti2Parser, _Cifti2AsNiftiImage

__all__ = ["CiftiImage", "grayordinate_map", "make_image"]

_GRAYORDINATES = re.compile(rb'<MatrixIndicesMap[^>]*"CIFTI_INDEX_TYPE_BRAIN_MODELS"[^>]*(?<!/)>')
_END = b"</MatrixIndicesMap>"
_parsing = threading.Lock()


class _Matrix(Cifti2Matrix):
    """A matrix that is not changed: its axes are made once."""

    def get_axis(self, index):
        axes = self.__dict__.setdefault("_axes", {})
        if index not in axes:
            axes[index] = super().get_axis(index)
        return axes[index]

    def get_data_shape(self):
        there = self.mapped_indices
        return tuple(
            len(self.get_axis(i)) if i in there else None for i in range(max(there, default=-1) + 1)
        )


class _Map(Cifti2MatrixIndicesMap):
    """The grayordinates of a matrix, which are not changed: their text is made once."""

    _element = None

    def _to_xml_element(self):
        if self._element is None:
            self._element = super()._to_xml_element()
        return self._element


class _Header(Cifti2Header):
    """A header that is not changed: images share it."""

    def copy(self):
        return self


class CiftiImage(Cifti2Image):
    """nibabel's image, whose header is shared by all that have the same: it must not be changed."""

    header_class = _Header

    @classmethod
    def from_file_map(cls, file_map, *, mmap=True, keep_file_open=None):
        nifti = _Cifti2AsNiftiImage.from_file_map(
            file_map, mmap=mmap, keep_file_open=keep_file_open
        )
        found = [e for e in nifti.header.extensions if e.get_code() == Cifti2Extension.code]
        if not found:
            raise ValueError("its NIfTI header has no CIFTI-2 extension")
        return cls(
            reshape_dataobj(nifti.dataobj, nifti.dataobj.shape[4:]),
            header=_parse(found[0].content),
            nifti_header=nifti.header,
            file_map=file_map,
        )


def _parse(xml):
    """Parse a header; its grayordinates, which are nearly all of it, once for all that are alike.

    What is left differs from run to run: the number of volumes, and notes of the programs.
    """
    opened = list(_GRAYORDINATES.finditer(xml))
    start = opened[0].end() if len(opened) == 1 else len(xml)
    stop = xml.find(_END, start)
    if stop < 0:
        return _assemble(_read(xml))
    with _parsing:  # threads that open images at once wait for the first of them
        grayordinates, axis = _parse_grayordinates(xml[opened[0].start() : stop + len(_END)])
    header = _assemble(_read(xml[:start] + xml[stop:]), grayordinates)
    for dimension in grayordinates.applies_to_matrix_dimension:
        header.matrix.__dict__.setdefault("_axes", {})[dimension] = axis
    return header


@lru_cache(maxsize=4)
def _parse_grayordinates(element):
    """The map of grayordinates and its axis."""
    [grayordinates] = _read(b'<CIFTI Version="2"><Matrix>' + element + b"</Matrix></CIFTI>").matrix
    return grayordinates, BrainModelAxis.from_index_mapping(grayordinates)


def _read(xml):
    parser = Cifti2Parser()
    parser.parse(string=xml)
    return parser.header


def _assemble(parsed, grayordinates=None):
    """A header that shares its grayordinates with others."""
    matrix = _Matrix()
    matrix.metadata = parsed.matrix.metadata
    models = "CIFTI_INDEX_TYPE_BRAIN_MODELS"
    for part in parsed.matrix:
        own = grayordinates is None or part.indices_map_to_data_type != models
        matrix.append(part if own else grayordinates)
    return _Header(matrix, parsed.version)


def grayordinate_map(brain_models):
    """Say in a header's words what the columns of a matrix are: for `make_image`."""
    made = brain_models.to_mapping(1)
    return _Map((1,), made.indices_map_to_data_type, maps=list(made))


def make_image(values, rows, brain_models, columns):
    """Make an image of some rows of grayordinates.

    Parameters
    ----------
    values : array of shape (n_rows, n_grayordinates)
    rows : nibabel.cifti2.Axis
    brain_models : nibabel.cifti2.BrainModelAxis
    columns : Cifti2MatrixIndicesMap
        Of the same, from `grayordinate_map`.

    Returns
    -------
    image : CiftiImage
    """
    matrix = _Matrix()
    matrix.extend([rows.to_mapping(0), columns])
    matrix._axes = {0: rows, 1: brain_models}
    return CiftiImage(values, header=_Header(matrix))
