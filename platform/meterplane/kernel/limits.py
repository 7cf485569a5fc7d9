"""Every bound of the product, with the arithmetic beside it."""

# --- a request at the gateway
REQUEST_BODY_BYTES_MAX = 16 * 1024 * 1024  # a batch of 2,048 texts of 8 kB
BODIES_BYTES_MAX = 512 * 1024 * 1024  # of one gateway worker's requests together: 32 of the largest
BODY_SMALL_BYTES_MAX = 64 * 1024  # not counted there: 16,384 connections x 64 kB = 1 GB at the most
HEADER_BYTES_MAX = 32 * 1024
HEADER_LINES_MAX = 100
CONNECTIONS_MAX = 16_384  # of one gateway worker, idle streams among them: 16,384 x ~14 kB = 230 MB
UPSTREAM_CONNECT_TIMEOUT_S = 2.0
UPSTREAM_FIRST_BYTE_TIMEOUT_S = 60.0
UPSTREAM_IDLE_TIMEOUT_S = 30.0  # between two chunks of a stream
UPSTREAM_RESPONSE_BYTES_MAX = 64 * 1024 * 1024
STREAM_DURATION_S_MAX = 600

# --- authentication
UNKNOWN_KEY_MEMORY_S = 30  # how long an unknown digest is refused without a read
UNKNOWN_KEYS_REMEMBERED_MAX = 65_536  # 65,536 x ~120 bytes = 8 MB
POLICY_CACHE_ENTRIES_MAX = 16_384
POLICY_CACHE_AGE_S_MAX = 60  # an idle policy is read again; Redis decides if it is still current
REFUSING_POLICY_AGE_S_MAX = 1.0  # before a held policy refuses a key or a model, it is this fresh

# --- journal
SEGMENT_BYTES_MAX = 1024 * 1024
SEGMENT_AGE_S_MAX = 0.5
FRAME_BYTES_MAX = 64 * 1024
COMMIT_BATCH_FRAMES_MAX = 4096
# Below it nothing more is admitted. What is under way needs far less: 16 workers x 4 segments of
# 1.1 MB, before and after a failure, and 16,384 SETTLEs of 0.7 kB; the rest is for all others.
JOURNAL_FREE_BYTES_MIN = 256 * 1024 * 1024

# --- admission
ADMISSION_TIMEOUT_S = 0.25  # a Redis that is slower than this is down for us: 503 (default)
BUDGET_BLOCK_FRACTION = 50  # one grant is 1/50 of the limit, or one request near the edge
RESERVATION_TTL_S = 2 * STREAM_DURATION_S_MAX

# --- billing
INVOICE_LINES_MAX = 250  # Stripe's bound on one invoice
