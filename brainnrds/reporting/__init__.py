"""HTML reports made of the figures, tables and sidecars that an analysis left behind."""

from brainnrds.reporting.methods import methods_text
from brainnrds.reporting.report import write_report

__all__ = ["methods_text", "write_report"]
