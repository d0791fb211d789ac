"""Several people: what they share."""

from brainnrds.group.inter_subject import inter_subject_correlation, match_films

__all__ = ["inter_subject_correlation", "match_films"]
