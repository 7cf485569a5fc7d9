"""Price books: draft, look at, preview and publish their versions."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing.invoicing.preview import preview_migrations, preview_version
from billing.pricing.entry_read import read_entries
from billing.pricing.models import PriceBook, PriceBookVersion
from billing.pricing.publish import check_draft, create_draft, publish
from billing.rating.values import month_after
from meterplane.api import pricing_shapes as shapes
from meterplane.api.exact import ExactJSON, ExactRenderer, object_of, text_of
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from meterplane.metering.external.shape import read_instant
from meterplane.policy.compile import recompile_everyone

VERSIONS_MAX = 200
_MONTH = OpenApiParameter("month", str, description="e.g. 2026-10; by default the last whole one")


class PriceVersions(APIView):
    """The versions of one price book."""

    parser_classes = (ExactJSON,)
    renderer_classes = (ExactRenderer,)

    @extend_schema(
        operation_id="v1_price_versions_list",
        responses={200: {"type": "array", "items": shapes.VERSION_OUT}},
    )
    def get(self, request: Request, book: str) -> Response:
        """List versions, the newest first, without their entries; at most 200."""
        rows = PriceBookVersion.objects.filter(book=_book(book)).select_related("book")
        return Response([shapes.version_json(each, whole=False) for each in rows[:VERSIONS_MAX]])

    @extend_schema(
        request={"application/json": shapes.DRAFT_IN}, responses={201: shapes.VERSION_OUT}
    )
    def post(self, request: Request, book: str) -> Response:
        """Draft a version of entries, making the book if it is new."""
        body = object_of(request.data)
        _known(body, "currency", "entries")
        known = PriceBook.objects.filter(name=book).first()
        currency = text_of(body, "currency", known.currency if known is not None else "USD")
        entries = read_entries(body.get("entries"), clock.now())
        draft = create_draft(book=book, currency=currency, entries=entries)
        return Response(_version(draft.id), 201)


class PriceVersion(APIView):
    """One version of a price book."""

    renderer_classes = (ExactRenderer,)

    @extend_schema(responses={200: shapes.VERSION_OUT})
    def get(self, request: Request, version_id: UUID) -> Response:
        """The version with its entries; of a draft also what publishing would complain of."""
        return Response(_version(version_id))


class PriceVersionPublish(APIView):
    """The publication of a draft."""

    parser_classes = (ExactJSON,)
    renderer_classes = (ExactRenderer,)

    @extend_schema(
        request={"application/json": shapes.PUBLISH_IN}, responses={200: shapes.VERSION_OUT}
    )
    def post(self, request: Request, version_id: UUID) -> Response:
        """Publish a draft, now or from `effective_at` on. From then on it never changes.

        `confirm` names findings that are meant: `gap`, `below_cost`.
        """
        body = object_of(request.data) if request.data else {}
        _known(body, "effective_at", "confirm")
        said = body.get("effective_at")
        confirm = body.get("confirm", [])
        if not isinstance(confirm, list) or not all(isinstance(each, str) for each in confirm):
            raise CallerError("body_invalid", "confirm must be a list of texts.", field="confirm")
        publish(
            version_id,
            effective_at=None if said is None else read_instant(said, "effective_at"),
            confirm=confirm,
        )
        recompile_everyone()
        return Response(_version(version_id))


class PriceVersionPreview(APIView):
    """What a draft would change."""

    renderer_classes = (ExactRenderer,)

    @extend_schema(parameters=[_MONTH], responses={200: shapes.DELTAS_OUT})
    def get(self, request: Request, version_id: UUID) -> Response:
        """Rate a month's usage of every tenant at the draft's prices beside its own."""
        month = _month(request)
        told = f"{month:%Y-%m}" if month else None
        return Response(shapes.deltas_json(told, preview_version(version_id, month)))


class PriceMigrations(APIView):
    """Tenants whose contracts keep an older version."""

    renderer_classes = (ExactRenderer,)

    @extend_schema(parameters=[_MONTH], responses={200: shapes.DELTAS_OUT})
    def get(self, request: Request, book: str) -> Response:
        """What each would pay more for a month's usage at the version that applies now."""
        month = _month(request)
        told = f"{month:%Y-%m}" if month else None
        return Response(shapes.deltas_json(told, preview_migrations(_book(book).name, month)))


def _book(name: str) -> PriceBook:
    book: PriceBook | None = PriceBook.objects.filter(name=name).first()
    if book is None:
        raise CallerError("book_not_found", f"There is no price book {name[:80]!r}.", status=404)
    return book


def _version(version_id: UUID) -> dict[str, Any]:
    version = PriceBookVersion.objects.select_related("book").filter(id=version_id).first()
    if version is None:
        raise CallerError("version_missing", "There is no such price-book version.", status=404)
    told = shapes.version_json(version)
    if version.status == PriceBookVersion.Status.DRAFT:
        told["findings"] = [
            {"code": each.code, "message": each.message, "confirmed_by": each.confirmed_by}
            for each in check_draft(version_id)
        ]
    return told


def _month(request: Request) -> datetime | None:
    text = request.query_params.get("month")
    if text is None:
        return None
    try:
        month = datetime.strptime(text, "%Y-%m").replace(tzinfo=UTC)
        month_after(month)  # the last one there is has no end
        return month
    except ValueError:
        raise CallerError(
            "month_invalid", f"{text[:20]!r} is not a month like 2026-10.", field="month"
        ) from None


def _known(body: dict[str, Any], *names: str) -> None:
    for name in body:
        if name not in names:
            raise CallerError(
                "body_invalid",
                f"{name[:40]!r} is not known here; known are {', '.join(names)}.",
                field=name[:40],
            )
