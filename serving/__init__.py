"""Floor 2: a bundle of digest-checked networks becomes marked talking-face videos."""
