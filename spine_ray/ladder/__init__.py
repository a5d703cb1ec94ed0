"""Decisions with evidence: gates, the board, the budget. Knows numpy and the study, no torch, no ray."""
