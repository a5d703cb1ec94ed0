"""One search from data to answer: preflight, tiers, gates, ensemble, refit, test split."""
