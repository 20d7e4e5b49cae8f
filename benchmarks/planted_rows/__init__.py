"""The rows of the table of planted defects. A new method is a new entry of one registry.

`scores.SCORES`, `units.UNIT_SCORES`, `heatmaps.HEATMAPS` and `corrections.CORRECTIONS` hold named functions of a `Scene`.
"""
