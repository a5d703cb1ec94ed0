"""What may be searched: trial configurations, start recipes and space files. Knows no torch, no ray."""
