"""From shards to batches: dataset, step plan, collation and the prefetching loader."""
