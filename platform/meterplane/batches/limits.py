"""Every bound of files and batches, with the arithmetic beside it."""

from datetime import timedelta

from meterplane.kernel.limits import (
    REQUEST_BODY_BYTES_MAX,
    STREAM_DURATION_S_MAX,
    UPSTREAM_RESPONSE_BYTES_MAX,
)

# --- files
FILE_BYTES_MAX = 200 * 1024 * 1024  # OpenAI's bound on a batch's input
UPLOAD_SLACK_BYTES = 64 * 1024  # the multipart envelope and its few fields
UPLOAD_BYTES_MAX = FILE_BYTES_MAX + UPLOAD_SLACK_BYTES
WEB_BODY_BYTES_MAX = REQUEST_BODY_BYTES_MAX  # of every other request to the web process
FILES_PER_ORGANISATION_MAX = 10_000
BYTES_PER_ORGANISATION_MAX = 50 * 1024**3  # 250 files of the largest size
FILE_LIFE = timedelta(days=30)
FILE_LIFE_S_MIN, FILE_LIFE_S_MAX = 3_600, 2_592_000  # what a caller may ask for: 1 hour to 30 days
ARRIVING_FOR = timedelta(hours=1)  # an upload that is not there after this never will be
READ_BYTES = 1024 * 1024  # of content at a time: 200 reads for the largest file
FILES_PAGE_MAX = 10_000  # OpenAI's; also what is given when nothing is asked
BATCHES_PAGE, BATCHES_PAGE_MAX = 20, 100

# --- a batch
CREATE_BODY_BYTES_MAX = 64 * 1024  # 16 pairs of 64 + 512 characters, escaped, and a few ids
METADATA_PAIRS_MAX, METADATA_KEY_CHARS_MAX, METADATA_VALUE_CHARS_MAX = 16, 64, 512
WINDOW = timedelta(hours=24)
OPEN_BATCHES_MAX = 100  # of one organisation: 5,000,000 lines
LINES_MAX = 50_000
LINE_BYTES_MAX = 1024 * 1024
CUSTOM_ID_CHARS_MAX = 512  # 50,000 of them are held while a file is validated: 25 MB
MODEL_CHARS_MAX = 80
EMBEDDING_INPUTS_MAX = 50_000  # OpenAI's bound over all lines of a batch
ERRORS_MAX = 100  # lines reported of a file that failed; reading stops there
INSERT_LINES = 5_000  # in one statement: ten for the largest batch

# --- running it
LINES_AT_ONCE = 16  # of one batch; a key's own rate limit may be lower and is waited for
GATHER_S = 0.01  # an answer waits so long for others: writing down costs about as much for one
SLICE_S = 30.0  # then the next batch has its turn
LEASE = timedelta(seconds=30)  # what a killed worker held is taken over after this
RENEW_EVERY_S = 10.0  # three chances before a lease ends
# The gateway ends every request within STREAM_DURATION_S_MAX; who waits longer waits for nothing.
ANSWER_TIMEOUT_S = STREAM_DURATION_S_MAX + 30
CONNECT_TIMEOUT_S = 5.0
ANSWER_BYTES_MAX = UPSTREAM_RESPONSE_BYTES_MAX  # whatever the gateway may answer can be stored
PASS_S = 120  # it is read when the request arrives, so it need not last as long as the answer
TASK_TIME_LIMIT_S = 900  # a slice, and the longest answer begun at its end: 30 + 630
# A line that gets 503 or no answer is tried again 2, 4 ... 256 s later, then every 300 s: 20 times
# are 68 minutes, in which a model may be away. 429 counts for nothing: waiting is what it asks.
ATTEMPTS_MAX = 20
BACKOFF_S_MAX = 300
PAUSE_S_MIN = 1.0  # between two looks at a batch whose lines are all in other hands
PAUSE_S_MAX = 60.0  # ... or whose key is at its rate limit
AWAY_S = 5.0  # before the gateway is looked for again
# A line whose fate is unknown when its batch is cancelled or expires is waited for this long.
UNKNOWN_FATE_FOR = timedelta(minutes=10)
FETCH_ROWS = 200  # results held while a result file is written

# --- the sweep
QUIET_FOR = timedelta(seconds=60)  # a batch nobody has worked on for so long has lost its doorbell
SWEEP_MAX = 200  # of each kind; every 30 s: 24,000 an hour
