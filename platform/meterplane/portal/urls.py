"""The portal's addresses, named `portal:...`, and allauth's sign-in under /accounts/."""

from django.urls import include, path

from meterplane.portal.views import (
    billing,
    billing_details,
    exports,
    invoice_files,
    invoice_line,
    keys,
    limit_forms,
    limits,
    overview,
    request,
    restriction_forms,
    switch,
    usage,
)

pages = [
    path("", overview.overview, name="overview"),
    path("usage/", usage.usage, name="usage"),
    path("exports/", exports.exports, name="exports"),
    path("exports/new/", exports.new, name="export-new"),
    path("exports/<uuid:export_id>/file/", exports.download, name="export-file"),
    path("exports/<uuid:export_id>/end/", exports.end, name="export-end"),
    path("requests/", request.find, name="requests"),
    path("requests/<uuid:request_id>/receipt/", request.receipt, name="receipt"),
    path("requests/<str:request_id>/", request.request_detail, name="request"),
    path("keys/", keys.keys, name="keys"),
    path("keys/new/", keys.new, name="key-new"),
    path("keys/<uuid:key_id>/revoke/", keys.revoke, name="key-revoke"),
    path("keys/<uuid:key_id>/rotate/", keys.rotate, name="key-rotate"),
    path("keys/leaks/<uuid:report_id>/dismiss/", keys.dismiss, name="leak-dismiss"),
    path("keys/<uuid:key_id>/limits/", limits.of_key, name="key-limits"),
    path("limits/", limits.limits, name="limits"),
    path("limits/new/", limit_forms.new, name="limit-new"),
    path("limits/<uuid:limit_id>/change/", limit_forms.change, name="limit-change"),
    path("limits/<uuid:limit_id>/raise/", limit_forms.increase, name="limit-raise"),
    path("limits/<uuid:limit_id>/remove/", limit_forms.remove, name="limit-remove"),
    path("limits/restrict/", restriction_forms.new, name="restriction-new"),
    path(
        "limits/restrict/<slug:level>/<uuid:scope_id>/",
        restriction_forms.change,
        name="restriction-change",
    ),
    path(
        "limits/restrict/<slug:level>/<uuid:scope_id>/remove/",
        restriction_forms.remove,
        name="restriction-remove",
    ),
    path("billing/", billing.billing, name="billing"),
    path("billing/details/", billing_details.change, name="billing-details"),
    path("billing/<uuid:invoice_id>/", billing.invoice, name="invoice"),
    path("billing/<uuid:invoice_id>/pdf/", invoice_files.pdf, name="invoice-pdf"),
    path("billing/<uuid:invoice_id>/usage/", invoice_files.usage_csv, name="invoice-usage"),
    path("billing/<uuid:invoice_id>/lines/<uuid:line_id>/", invoice_line.line, name="invoice-line"),
    path(
        "billing/<uuid:invoice_id>/lines/<uuid:line_id>/events/",
        invoice_files.line_events_csv,
        name="invoice-line-events",
    ),
    path(
        "billing/credit-notes/<uuid:note_id>/pdf/",
        invoice_files.credit_note_pdf,
        name="credit-note-pdf",
    ),
    path("switch/", switch.switch, name="switch"),
]
urlpatterns = [
    path("accounts/", include("allauth.urls")),
    path("", include((pages, "portal"))),
]
