"""Figures: functions from arrays to matplotlib figures; close them after saving."""

from brainnrds.plotting.charts import (
    plot_bars,
    plot_noise_ceiling,
    plot_score_comparison,
    plot_score_histograms,
)
from brainnrds.plotting.maps import (
    grayordinates_to_vertices,
    image_to_vertices,
    plot_difference_map,
    plot_flatmap,
    plot_surface_views,
    plot_volume_map,
    significance_to_opacity,
)

__all__ = [
    "grayordinates_to_vertices",
    "image_to_vertices",
    "plot_bars",
    "plot_difference_map",
    "plot_flatmap",
    "plot_noise_ceiling",
    "plot_score_comparison",
    "plot_score_histograms",
    "plot_surface_views",
    "plot_volume_map",
    "significance_to_opacity",
]
