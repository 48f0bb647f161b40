"""Claims of the paper, each decided by a rule from the records, and the scorecard."""
