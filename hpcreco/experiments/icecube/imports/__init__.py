"""Files of other programs, read as the events of a pulses shard."""
