"""The ragkube data plane: an HTTP service that answers questions over documents."""

__version__ = "0.1.0"
