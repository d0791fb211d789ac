"""Figures: functions from arrays and images to matplotlib figures; close them after saving."""

from brainnrds.plotting.charts import (
    plot_bars,
    plot_grouped_bars,
    plot_noise_ceiling,
    plot_score_comparison,
    plot_score_histograms,
)
from brainnrds.plotting.clips import plot_clip_strips, side_by_side
from brainnrds.plotting.flow import (
    flow_to_colors,
    plot_controls,
    plot_flow_strips,
    plot_flow_wheel,
    plot_gain_curve,
    plot_learning_curve,
    plot_null_gain,
)
from brainnrds.plotting.maps import (
    plot_difference_map,
    plot_flatmap,
    plot_rgb_map,
    plot_surface_views,
    plot_volume_map,
    significance_to_opacity,
)
from brainnrds.plotting.surfaces import (
    image_to_vertices,
    load_pycortex_subject,
    template_faces,
)
from brainnrds.plotting.venn import plot_variance_partition
from brainnrds.plotting.viewer import view_maps, view_slices

__all__ = [
    "flow_to_colors",
    "image_to_vertices",
    "load_pycortex_subject",
    "plot_bars",
    "plot_clip_strips",
    "plot_controls",
    "plot_difference_map",
    "plot_flatmap",
    "plot_flow_strips",
    "plot_flow_wheel",
    "plot_gain_curve",
    "plot_grouped_bars",
    "plot_learning_curve",
    "plot_noise_ceiling",
    "plot_null_gain",
    "plot_rgb_map",
    "plot_score_comparison",
    "plot_score_histograms",
    "plot_surface_views",
    "plot_variance_partition",
    "plot_volume_map",
    "side_by_side",
    "significance_to_opacity",
    "template_faces",
    "view_maps",
    "view_slices",
]
