"""What a deghosting run is worth: purity-efficiency curves, counts and baselines. No torch in here."""
