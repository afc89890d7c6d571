"""How good a take is: measurements, metrics, warnings and the report."""
