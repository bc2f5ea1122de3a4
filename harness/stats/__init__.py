"""Which differences are real: items in pairs, intervals, tests, corrections, what could have been seen."""
