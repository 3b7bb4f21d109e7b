"""Other engines on the job of `benchmarks.engine`, each in an environment of its own."""
