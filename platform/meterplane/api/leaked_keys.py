"""Where anybody says that a key is in the open, without an account.

Guarantees: every well-made report is answered alike, so that nobody learns which keys are live; how
many come from one network address is bounded (a report of an unknown key costs a read); no key is
logged. A throttle that cannot be asked lets reports through: a leak that stands is worse.
"""

import ipaddress
import logging
from typing import Any

import redis
from django.core.cache import cache
from drf_spectacular.utils import extend_schema
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import BaseThrottle
from rest_framework.views import APIView

from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError, WorldError
from tenants.leaks import report_leak

log = logging.getLogger(__name__)

REPORTS_MAX = 100  # of one request; GitHub's secret scanning sends several at once
REQUESTS_PER_MINUTE_MAX = 30  # of one address: 3,000 keys, a read each
IPV6_PREFIX = 64  # what one subscriber has is one address here
_MINUTE_MS = 60_000

_REPORT = {
    "type": "object",
    "properties": {
        "key": {"type": "string", "description": "mp_live_…; `token` is read the same."},
        "url": {"type": "string", "description": "Where it was found; its owner is told."},
    },
    "required": ["key"],
}


class LeakThrottle(BaseThrottle):
    """So many requests a minute of one address, counted in the cache that all processes share."""

    def allow_request(self, request: Request, view: APIView) -> bool:
        name = f"leaks:{_network(self.get_ident(request) or '')}:{clock.now_ms() // _MINUTE_MS}"
        try:
            cache.add(name, 0, 2 * _MINUTE_MS // 1000)
            return cache.incr(name) <= REQUESTS_PER_MINUTE_MAX
        except (redis.RedisError, ValueError) as away:  # ValueError: it was evicted in between
            log.warning("reports of leaked keys are not counted: %s", type(away).__name__)
            return True

    def wait(self) -> float:
        """Seconds until the next minute."""
        return (_MINUTE_MS - clock.now_ms() % _MINUTE_MS) / 1000


class LeakedKeys(APIView):
    """Keys that somebody found where everybody can read them."""

    authentication_classes = ()
    permission_classes = (AllowAny,)
    throttle_classes = (LeakThrottle,)

    @extend_schema(
        auth=[],
        request={
            "application/json": {
                "oneOf": [
                    _REPORT,
                    {"type": "array", "items": _REPORT, "minItems": 1, "maxItems": REPORTS_MAX},
                ]
            }
        },
        responses={
            202: {
                "type": "object",
                "properties": {"status": {"const": "accepted"}},
                "required": ["status"],
            }
        },
    )
    def post(self, request: Request) -> Response:
        """Report leaked keys. A live one is revoked before this answers, and its owner told.

        Needs no login. What is unknown, mistyped or revoked already is answered the same.
        """
        untold: WorldError | None = None
        for secret, url in _reports(request.data):
            try:
                report_leak(secret, url)
            except WorldError as failure:
                untold = failure  # the others are in the open just as well
        if untold is not None:
            raise untold
        return Response({"status": "accepted"}, status=202)


def _reports(body: Any) -> list[tuple[str, str]]:
    """Each key and where it was found. Raises `CallerError` for what is no report at all."""
    reports = body if isinstance(body, list) else [body]
    if not 1 <= len(reports) <= REPORTS_MAX:
        raise CallerError("reports_out_of_range", f"Send 1 to {REPORTS_MAX} reports at a time.")
    found = []
    for each in reports:
        secret = each.get("key", each.get("token")) if isinstance(each, dict) else None
        if not isinstance(secret, str):
            raise CallerError(
                "report_invalid", 'Send {"key": "mp_live_…", "url": "where it was found"}.'
            )
        url = each.get("url")
        found.append((secret, url if isinstance(url, str) else ""))
    return found


def _network(address: str) -> str:
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is None:
        return str(ipaddress.ip_network((ip, IPV6_PREFIX), strict=False).network_address)
    return str(ip)
