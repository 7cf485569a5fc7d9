"""Every bound of exports, with the arithmetic beside it."""

from datetime import timedelta

DAYS_MAX = 400  # a year and a month: one file a year is what is asked for
PAGE_ROWS = 5_000  # of about 1 kB each as Python objects: 5 MB at once, however long the export
PART_ROWS = 100_000  # about 4 s of one core; what a killed worker repeats at most
PART_DAYS = 31  # of a quiet organisation: 400 days are 13 parts
ROW_GROUP_ROWS = 50_000  # held while a Parquet file is written: about 25 MB
BLOCK_BYTES = 256 * 1024  # of a file at a time, on its way to a client or a bucket
OPEN_PER_OWNER_MAX = 20  # of one organisation; of the operator's as many
PAGE_MAX = 100  # of a list
SLICE_S = 30.0  # then the next export has its turn
AWAY_S = 2.0  # until who wrote usage when an export began has ended is looked for again
QUIET_FOR = timedelta(seconds=60)  # an export nobody has worked on for so long lost its doorbell
SWEEP_MAX = 200  # of each kind, every 30 s

# --- sending them to a bucket
GRACE = timedelta(minutes=10)  # after a period's end: what its gateways still hold comes in
REVISE_FOR = timedelta(days=35)  # late usage of a period that ended so long ago makes a revision
PERIODS_PER_SWEEP_MAX = 48  # begun at once: two days of hours after the worker was away
CONNECT_TIMEOUT_S = 5.0
REQUEST_TIMEOUT_S = 60.0  # one part of a multipart upload, 10 MB
ATTEMPTS_PER_CALL = 2
# A bucket that cannot be reached is tried again after 1, 2, 4 ... 60 minutes, for ever.
BACKOFF_MIN, BACKOFF_MAX = timedelta(minutes=1), timedelta(hours=1)
