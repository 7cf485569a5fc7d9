"""Routes of the control API."""

from django.urls import path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView

from meterplane.api import (
    alerts,
    collection,
    contracts,
    corrections,
    credit_grants,
    disputes,
    documents,
    events,
    exports,
    interims,
    invoices,
    ledger,
    limits,
    meters,
    money_in,
    prices,
    requests,
    usage,
    views,
    webhook_events,
)
from meterplane.api.calculator import Calculator
from meterplane.api.leaked_keys import LeakedKeys
from meterplane.api.reconciliation import ReconciliationView

app_name = "api"

urlpatterns = [
    path("schema/", SpectacularAPIView.as_view(), name="schema"),
    path("docs/", SpectacularSwaggerSplitView.as_view(url_name="api:schema"), name="docs"),
    path("v1/organisations", views.Organisations.as_view(), name="organisations"),
    path("v1/organisations/<slug:slug>", views.OrganisationDetail.as_view(), name="organisation"),
    path("v1/organisations/<slug:slug>/keys", views.Keys.as_view(), name="keys"),
    path("v1/organisations/<slug:slug>/keys/<uuid:key_id>", views.KeyDetail.as_view(), name="key"),
    path(
        "v1/organisations/<slug:slug>/keys/<uuid:key_id>/rotate",
        views.KeyRotation.as_view(),
        name="key_rotation",
    ),
    path("v1/leaked-keys", LeakedKeys.as_view(), name="leaked_keys"),
    path("v1/reconciliation", ReconciliationView.as_view(), name="reconciliation"),
    path("v1/webhook-events", webhook_events.WebhookEvents.as_view(), name="webhook_events"),
    path(
        "v1/webhook-events/<str:event_id>/process-again",
        webhook_events.WebhookEventAgain.as_view(),
        name="webhook_event_process_again",
    ),
    path("v1/disputes", disputes.Disputes.as_view(), name="disputes_all"),
    path("v1/disputes/<uuid:dispute_id>", disputes.DisputeDetail.as_view(), name="dispute"),
    path("v1/pricing/calculate", Calculator.as_view(), name="pricing_calculate"),
    path("v1/plans", limits.Plans.as_view(), name="plans"),
    path("v1/plans/<slug:slug>", limits.PlanDetail.as_view(), name="plan"),
    *[
        path(f"v1/organisations/<slug:slug>/{address}", view.as_view(), name=name)
        for address, view, name in (
            ("plan", limits.OrganisationPlan, "organisation_plan"),
            ("priority", limits.OrganisationPriority, "organisation_priority"),
            ("limits", limits.Limits, "limits"),
            ("limits/<uuid:limit_id>", limits.LimitDetail, "limit"),
            ("limits/<uuid:limit_id>/raise", limits.LimitRaise, "limit_raise"),
            ("restrictions", limits.Restrictions, "restrictions"),
            ("balance", limits.Balance, "balance"),
            ("balance/alert", alerts.BalanceAlert, "balance_alert"),
            ("alerts", alerts.Alerts, "alerts"),
            ("credits", credit_grants.Credits, "credits"),
            ("credits/<uuid:grant_id>", credit_grants.CreditDetail, "credit"),
            ("credits/<uuid:grant_id>/refund", credit_grants.CreditRefund, "credit_refund"),
            ("credit-balance", credit_grants.CreditBalance, "credit_balance"),
            ("credit-hold", credit_grants.CreditHold, "credit_hold"),
            ("recurring-credits", credit_grants.RecurringCredits, "recurring_credits"),
            (
                "recurring-credits/<uuid:recurrence_id>/end",
                credit_grants.RecurringCreditEnd,
                "recurring_credit_end",
            ),
            ("payment-methods", money_in.PaymentMethods, "payment_methods"),
            ("payment-methods/session", money_in.CardSession, "card_session"),
            ("billing-portal/session", money_in.PortalSession, "portal_session"),
            ("top-ups", money_in.TopUps, "top_ups"),
            ("top-ups/<uuid:top_up_id>", money_in.TopUpDetail, "top_up"),
            ("top-ups/<uuid:top_up_id>/check", money_in.TopUpCheck, "top_up_check"),
            ("auto-reload", money_in.AutoReload, "auto_reload"),
            ("auto-reload/resume", money_in.AutoReloadResume, "auto_reload_resume"),
            ("disputes", disputes.OrganisationDisputes, "disputes"),
            ("ledger", ledger.Ledger, "ledger"),
            ("ledger/statement", ledger.AccountStatement, "ledger_statement"),
        )
    ],
    path("v1/usage", usage.Usage.as_view(), name="usage_of_all"),
    path("v1/organisations/<slug:slug>/usage", usage.OrganisationUsage.as_view(), name="usage"),
    path(
        "v1/organisations/<slug:slug>/usage/by/<str:group>",
        usage.OrganisationUsageBy.as_view(),
        name="usage_by",
    ),
    path("v1/requests", requests.Requests.as_view(), name="requests_of_all"),
    path("v1/requests/<str:request_id>", requests.RequestDetail.as_view(), name="request_of_all"),
    path(
        "v1/organisations/<slug:slug>/requests",
        requests.OrganisationRequests.as_view(),
        name="requests",
    ),
    path(
        "v1/organisations/<slug:slug>/requests/<str:request_id>",
        requests.OrganisationRequestDetail.as_view(),
        name="request",
    ),
    path(
        "v1/models/<str:name>/reservations",
        views.ModelReservations.as_view(),
        name="model_reservations",
    ),
    path("v1/events", events.Events.as_view(), name="events"),
    path("v1/events/amend", events.NamedEventAmend.as_view(), name="event_amend_named"),
    path("v1/events/deprecate", events.NamedEventDeprecate.as_view(), name="event_deprecate_named"),
    path("v1/events/<uuid:receipt_id>", events.EventDetail.as_view(), name="event"),
    path("v1/events/<uuid:receipt_id>/amend", events.EventAmend.as_view(), name="event_amend"),
    path(
        "v1/events/<uuid:receipt_id>/deprecate",
        events.EventDeprecate.as_view(),
        name="event_deprecate",
    ),
    path("v1/backfills", events.Backfills.as_view(), name="backfills"),
    path("v1/backfills/<uuid:backfill_id>", events.BackfillDetail.as_view(), name="backfill"),
    path(
        "v1/backfills/<uuid:backfill_id>/close",
        events.BackfillClose.as_view(),
        name="backfill_close",
    ),
    path(
        "v1/backfills/<uuid:backfill_id>/revert",
        events.BackfillRevert.as_view(),
        name="backfill_revert",
    ),
    path("v1/meters", meters.Meters.as_view(), name="meters"),
    path("v1/meters/<slug:slug>", meters.MeterDetail.as_view(), name="meter"),
    path("v1/meters/<slug:slug>/usage", meters.MeterUsageView.as_view(), name="meter_usage"),
    path("v1/organisations/<slug:slug>/invoices", views.Invoices.as_view(), name="invoices"),
    path("v1/dunning-policy", collection.InstallationPolicy.as_view(), name="dunning_policy"),
    path("v1/tax-rates", documents.TaxRates.as_view(), name="tax_rates"),
    path("v1/tax-rates/<uuid:rate_id>", documents.TaxRateDetail.as_view(), name="tax_rate"),
    *[
        path(f"v1/organisations/<slug:slug>/{address}", view.as_view(), name=name)
        for address, view, name in (
            ("taxes", documents.OrganisationTaxes, "organisation_taxes"),
            ("interim-threshold", interims.InterimThresholds, "interim_threshold"),
            ("collection-terms", collection.Terms, "collection_terms"),
            ("dunning-policy", collection.OrganisationPolicy, "organisation_dunning_policy"),
            ("dunning", collection.OrganisationDunning, "organisation_dunning"),
            ("billing-details", documents.OrganisationBillingDetails, "billing_details"),
            ("credit-notes", documents.CreditNotes, "credit_notes"),
            ("credit-notes/<uuid:note_id>", documents.CreditNoteDetail, "credit_note"),
            ("credit-notes/<uuid:note_id>/pdf", documents.CreditNotePDF, "credit_note_pdf"),
        )
    ],
    *[
        path(
            f"v1/organisations/<slug:slug>/invoices/<uuid:invoice_id>{address}",
            view.as_view(),
            name=f"invoice{name}",
        )
        for address, view, name in (
            ("", invoices.InvoiceDetail, ""),
            ("/csv", invoices.InvoiceCSV, "_csv"),
            ("/usage.csv", invoices.InvoiceUsageCSV, "_usage_csv"),
            ("/pdf", invoices.InvoicePDF, "_pdf"),
            ("/credit-notes", documents.InvoiceCreditNotes, "_credit_notes"),
            ("/void", corrections.InvoiceVoid, "_void"),
            ("/write-off", corrections.InvoiceWriteOff, "_write_off"),
            ("/refunds", corrections.InvoiceRefunds, "_refunds"),
            ("/payments", collection.InvoicePayments, "_payments"),
            (
                "/payments/<uuid:payment_id>/take-back",
                collection.InvoicePaymentTakenBack,
                "_payment_take_back",
            ),
            ("/lines/<uuid:line_id>/events", invoices.LineEvents, "_line_events"),
            ("/lines/<uuid:line_id>/events.csv", invoices.LineEventsCSV, "_line_events_csv"),
        )
    ],
    *[
        path(f"v1/organisations/<slug:slug>/{address}", view.as_view(), name=name)
        for address, view, name in (
            ("invoices/upcoming", contracts.Upcoming, "upcoming_invoice"),
            ("contracts", contracts.Contracts, "contracts"),
            ("contracts/<uuid:contract_id>", contracts.ContractDetail, "contract"),
            ("contracts/<uuid:contract_id>/end", contracts.ContractEnd, "contract_end"),
        )
    ],
    *[
        path(f"v1/{address}", view.as_view(), name=name)
        for address, view, name in (
            ("price-books/<slug:book>/versions", prices.PriceVersions, "price_versions"),
            ("price-books/<slug:book>/migrations", prices.PriceMigrations, "price_migrations"),
            ("price-versions/<uuid:version_id>", prices.PriceVersion, "price_version"),
            (
                "price-versions/<uuid:version_id>/publish",
                prices.PriceVersionPublish,
                "price_version_publish",
            ),
            (
                "price-versions/<uuid:version_id>/preview",
                prices.PriceVersionPreview,
                "price_version_preview",
            ),
        )
    ],
    *[
        path(f"v1/{owner}exports{address}", view.as_view(), name=prefix + name)
        for owner, prefix in (("", "all_"), ("organisations/<slug:slug>/", ""))
        for address, view, name in (
            ("", exports.Exports if owner else exports.AllExports, "exports"),
            ("/stream", exports.ExportStream, "export_stream"),
            ("/<uuid:export_id>", exports.ExportDetail, "export"),
            ("/<uuid:export_id>/file", exports.ExportFile, "export_file"),
        )
    ],
]
