"""Pages as Parquet: typed, zstd, row groups of the same size whatever the pages were.

So a file that was put together of parts is the file of the whole: where a part ended cannot be seen
in it. Holds one row group in memory.
"""

from collections.abc import Iterable
from typing import IO

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from meterplane.metering.exports.limits import ROW_GROUP_ROWS


def write(target: IO[bytes], schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    """Write the rows of `batches`, in their order, as one file."""
    with pq.ParquetWriter(target, schema, compression="zstd") as writer:
        held: list[pa.RecordBatch] = []
        rows = 0
        for batch in batches:
            while batch.num_rows:
                taken = batch.slice(0, ROW_GROUP_ROWS - rows)
                batch = batch.slice(taken.num_rows)
                held.append(taken)
                rows += taken.num_rows
                if rows == ROW_GROUP_ROWS:
                    writer.write_table(pa.Table.from_batches(held, schema))
                    held, rows = [], 0
        if held:
            writer.write_table(pa.Table.from_batches(held, schema))
