"""Python client of the ESS Profiler."""
