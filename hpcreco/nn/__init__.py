"""Building blocks of networks: a sparse UResNet, normalisation, losses, metrics."""
