"""The ragkube data plane: an HTTP service that answers questions over documents."""
