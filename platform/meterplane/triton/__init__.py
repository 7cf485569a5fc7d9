"""Async client of the Triton Inference Server: pooled HTTP/1.1, streams, the generate protocol."""
