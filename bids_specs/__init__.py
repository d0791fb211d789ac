"""Names and places of outputs as data: queries, path patterns, entities, report sections."""
