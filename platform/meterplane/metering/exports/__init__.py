"""Usage as files: asked for by people, or sent to a bucket by schedule.

`query` says what is asked for, `source` reads it a page at a time, `focus` as FinOps FOCUS rows,
`write_csv` and `write_parquet` make bytes of pages. `request` and `advance` make an export in parts
that survive a killed worker; `stream` answers at once; `serve` lets a download go on.
`destination`, `schedule` and `deliver` send them to S3.
"""
