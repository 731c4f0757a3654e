"""Synthetic ProtoDUNE events: particles -> energy deposits -> drift -> wires -> signal processing, from seeds only."""
