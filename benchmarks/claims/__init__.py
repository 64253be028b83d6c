"""The papers' claims, tried on the embedded model: ``python -m benchmarks.claims NAME``."""
