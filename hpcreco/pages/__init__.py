"""Reports as files: one HTML page that needs no network, a PNG and a CSV file behind every picture of it."""
