"""Serves a cross-encoder (ONNX, entailment) as ``/rerank``, to measure what a verifier adds.

python -m bench.verifier DIRECTORY [--port 8093]     DIRECTORY has MODEL.onnx and a tokenizer.json somewhere below it.

Two questions are the same as far as each entails the other: the score is the smaller probability of both directions.
Needs onnxruntime and tokenizers, which nothing else here needs: ``pip install onnxruntime tokenizers``.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


class CrossEncoder:
    """``entails`` is the place of that class in the model's output."""

    def __init__(self, directory: Path, *, entails: int = 0, length: int = 160) -> None:
        tokenizers, onnx = (importlib.import_module(name) for name in ("tokenizers", "onnxruntime"))
        self._tokens: Any = tokenizers.Tokenizer.from_file(str(next(directory.rglob("tokenizer.json"))))
        self._tokens.enable_padding(length=length)
        self._tokens.enable_truncation(length)
        self._model: Any = onnx.InferenceSession(str(next(directory.rglob("*.onnx"))))
        self._entails = entails

    def score(self, one: str, other: str) -> float:
        """0 to 1."""
        encoded = self._tokens.encode_batch([(one, other), (other, one)])
        inputs = {
            "input_ids": np.array([each.ids for each in encoded], dtype=np.int64),
            "attention_mask": np.array([each.attention_mask for each in encoded], dtype=np.int64),
        }
        (logits,) = self._model.run(None, inputs)
        exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
        return float((exponents / exponents.sum(axis=1, keepdims=True))[:, self._entails].min())


def application(encoder: CrossEncoder) -> Starlette:
    """One route, in the shape of Text Embeddings Inference."""

    async def rerank(request: Request) -> JSONResponse:
        body = await request.json()
        scores = [encoder.score(body["query"], text) for text in body["texts"]]
        return JSONResponse([{"index": n, "score": score} for n, score in enumerate(scores)])

    return Starlette(routes=[Route("/rerank", rerank, methods=["POST"])])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("--port", type=int, default=8093)
    arguments = parser.parse_args()
    uvicorn.run(
        application(CrossEncoder(arguments.directory)),
        host="127.0.0.1",
        port=arguments.port,
        log_level="warning",
    )
