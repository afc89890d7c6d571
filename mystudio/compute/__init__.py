"""Devices, precision, compilation, memory and the Muon optimiser."""
