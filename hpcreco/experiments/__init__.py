"""The experiments: each is two values behind the seam, see `hpcreco.experiment` and `hpcreco.train.task`."""
