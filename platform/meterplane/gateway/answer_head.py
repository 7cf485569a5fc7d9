"""The words of an answer's head, and the whole answer to what was no request at all."""

TRY_AGAIN_S = 1  # whoever was turned away; connections end all the time

REASONS: dict[int, bytes] = {
    200: b"OK",
    201: b"Created",
    204: b"No Content",
    400: b"Bad Request",
    401: b"Unauthorized",
    402: b"Payment Required",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    409: b"Conflict",
    413: b"Content Too Large",
    414: b"URI Too Long",
    415: b"Unsupported Media Type",
    422: b"Unprocessable Content",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    501: b"Not Implemented",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
}


def refusal(status: int, why: str) -> bytes:
    """An answer to what is no exchange, in a shape every client can show; the connection ends."""
    again = b"retry-after: %d\r\n" % TRY_AGAIN_S if status == 503 else b""
    body = b'{"error":"' + why.replace("\\", "").replace('"', "'").encode() + b'"}'
    return (
        b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\nconnection: close\r\n%s"
        b"content-length: %d\r\n\r\n%s"
        % (status, REASONS.get(status, b"Bad Request"), again, len(body), body)
    )
