"""The control API: what an operator's programs call, under `/api/v1/`."""
