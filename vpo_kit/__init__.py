"""vpo-kit: align text-to-video diffusion models to preferences."""

__version__ = "0.2.0"
