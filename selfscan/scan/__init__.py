"""The self-scan: quality, coverage, diverse selection, identity, consent and recording."""
