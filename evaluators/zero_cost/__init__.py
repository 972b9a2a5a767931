"""Training-free (zero-cost) proxies: one a file, planned into few passes over a fresh network."""
