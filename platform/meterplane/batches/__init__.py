"""Files and batches, as the OpenAI clients know them, under `/v1/files` and `/v1/batches`.

A batch is a file of requests that run when there is room, each through the gateway like any other:
admitted, metered and billed there. Nothing here knows a price or a budget.
"""
