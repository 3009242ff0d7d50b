"""The ragkube data plane: an HTTP service that answers questions over documents."""

import os

# Requests run side by side: a thread per core inside each small product or tokenisation costs several times the
# work itself. Read when numpy and tokenizers are loaded, so it must stand before both; what is set already, stays.
for _variable, _value in {"OPENBLAS_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}.items():
    os.environ.setdefault(_variable, _value)

__version__ = "0.1.0"
