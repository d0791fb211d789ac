"""What all extractors share: they describe clips and learn nothing."""

from sklearn.base import BaseEstimator, TransformerMixin


class Extractor(TransformerMixin, BaseEstimator):
    """A transformer of clips without anything to fit.

    Its parameters `fps` and `size` (`rate` for sound) say what clips it wants to see.
    """

    def fit(self, clips=None, y=None):
        """Do nothing: there is nothing to learn.

        Parameters
        ----------
        clips, y : ignored

        Returns
        -------
        self : extractor
        """
        return self

    def __sklearn_is_fitted__(self):
        return True

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        return tags
