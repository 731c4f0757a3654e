"""What reconstructed events are worth: numbers and pictures. Torch-free."""
