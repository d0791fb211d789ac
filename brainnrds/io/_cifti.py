"""CIFTI images: a header of megabytes is parsed, or made, once for all that have the same."""

from functools import lru_cache

from nibabel.arrayproxy import reshape_dataobj
from nibabel.cifti2 import Cifti2Header, Cifti2Image, Cifti2Matrix, Cifti2MatrixIndicesMap
from nibabel.cifti2.parse_cifti2 import Cifti2Extension, Cifti2Parser, _Cifti2AsNiftiImage

__all__ = ["CiftiImage", "grayordinate_map", "make_image"]


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


# runs of a few lengths: headers differ in the number of volumes
@lru_cache(maxsize=4)
def _parse(xml):
    parser = Cifti2Parser()
    parser.parse(string=xml)
    parsed, matrix = parser.header, _Matrix()
    matrix.metadata = parsed.matrix.metadata
    matrix.extend(parsed.matrix)
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
