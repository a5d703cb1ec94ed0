"""The only room that imports mlflow: driver side, from finished records, never in the way of the search."""
