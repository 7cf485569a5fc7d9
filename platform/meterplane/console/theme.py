"""Unfold's settings: the portal's indigo, the console's sidebar. Imported by the settings."""

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import reverse_lazy
from django.utils.functional import lazy

_static = lazy(static, str)


def _style(path: str) -> Callable[[HttpRequest], str]:
    return lambda _request: static(path)


def _item(title: str, icon: str, route: str) -> dict[str, Any]:
    return {"title": title, "icon": icon, "link": reverse_lazy(f"console:{route}")}


UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "Meterplane console",
    "SITE_HEADER": "Meterplane",
    "SITE_SUBHEADER": "Operator console",
    "SITE_URL": "/",
    "SITE_SYMBOL": "speed",
    "SITE_FAVICONS": [
        {"rel": "icon", "type": "image/svg+xml", "href": _static("portal/favicon.svg")}
    ],
    "STYLES": [_style("console/console.css")],
    "SHOW_HISTORY": True,
    "SHOW_VIEW_ON_SITE": False,
    "BORDER_RADIUS": "8px",
    "ENVIRONMENT": "meterplane.console.dashboard.environment_badge",
    "DASHBOARD_CALLBACK": "meterplane.console.dashboard.dashboard",
    "COLORS": {
        "primary": {
            "50": "oklch(96.2% .018 272.314)",
            "100": "oklch(93% .034 272.788)",
            "200": "oklch(87% .065 274.039)",
            "300": "oklch(78.5% .115 274.713)",
            "400": "oklch(67.3% .182 276.935)",
            "500": "oklch(58.5% .233 277.117)",
            "600": "oklch(51.1% .262 276.966)",
            "700": "oklch(45.7% .24 277.023)",
            "800": "oklch(39.8% .195 277.366)",
            "900": "oklch(35.9% .144 278.697)",
            "950": "oklch(25.7% .09 281.288)",
        },
    },
    "COMMAND": {"search_models": True},
    "SIDEBAR": {
        "show_search": True,
        "command_search": True,
        "navigation": [
            {"items": [_item("Dashboard", "dashboard", "index")]},
            {
                "title": "Customers",
                "separator": True,
                "items": [
                    _item("Organisations", "apartment", "tenants_organisation_changelist"),
                    _item("Plans", "speed", "tenants_plan_changelist"),
                    _item("Projects", "folder", "tenants_project_changelist"),
                    _item("Members", "group", "tenants_member_changelist"),
                    _item("API keys", "key", "tenants_apikey_changelist"),
                ],
            },
            {
                "title": "Offer",
                "separator": True,
                "items": [
                    _item("Models", "deployed_code", "catalog_model_changelist"),
                    _item("Price books", "menu_book", "pricing_pricebook_changelist"),
                    _item("Versions", "history", "pricing_pricebookversion_changelist"),
                    _item("Contracts", "handshake", "pricing_tenantcontract_changelist"),
                ],
            },
            {
                "title": "Usage",
                "separator": True,
                "items": [
                    _item("Usage events", "bolt", "usage_events"),
                    _item("Usage by deployment", "alt_route", "usage_by"),
                    _item("External events", "input", "external_events"),
                    _item("Meters", "straighten", "meters"),
                    _item(
                        "Export schedules", "schedule_send", "metering_exportschedule_changelist"
                    ),
                    _item("Destinations", "cloud_upload", "metering_exportdestination_changelist"),
                    _item("Alerts", "notifications", "policy_alert_changelist"),
                ],
            },
            {
                "title": "Metering",
                "separator": True,
                "items": [
                    _item("Reconciliation", "balance", "reconciliation"),
                    _item("Journal", "menu_book", "journals"),
                    _item("Journal segments", "inventory_2", "metering_journalsegment_changelist"),
                    _item("Quarantine", "report", "metering_usagequarantine_changelist"),
                    _item("Canary", "flutter_dash", "metering_canaryrun_changelist"),
                ],
            },
            {
                "title": "Billing",
                "separator": True,
                "items": [
                    _item("Invoices", "receipt_long", "invoicing_invoice_changelist"),
                    _item("Credit notes", "undo", "invoicing_creditnote_changelist"),
                    _item("Refunds", "currency_exchange", "payments_refund_changelist"),
                    _item("Disputes", "gavel", "payments_dispute_changelist"),
                    _item("Overdue", "alarm", "payments_dunningcase_changelist"),
                    _item("Dunning steps", "mail", "payments_dunningstep_changelist"),
                    _item("Dunning policy", "tune", "payments_dunningpolicy_changelist"),
                    _item("Dunning by customer", "rule", "payments_dunningoverride_changelist"),
                    _item("Bank transfers", "payments", "payments_recordedpayment_changelist"),
                    _item("Tax rates", "percent", "invoicing_taxrate_changelist"),
                    _item("Interim thresholds", "speed", "invoicing_interimthreshold_changelist"),
                    _item("Credit", "savings", "credits_creditgrant_changelist"),
                    _item("Credit movements", "swap_vert", "credits_creditmovement_changelist"),
                    _item(
                        "Recurring credit", "event_repeat", "credits_creditrecurrence_changelist"
                    ),
                    _item("Ledger", "menu_book", "ledger_ledgerentry_changelist"),
                    _item("Balances", "balance", "ledger_ledgerbalance_changelist"),
                    _item("Ledger audits", "fact_check", "ledger_auditrun_changelist"),
                    _item("Collecting", "hourglass_top", "collecting"),
                    _item("Payment steps", "account_balance", "payments_paymentstep_changelist"),
                    _item("Payment findings", "rule", "payments_paymentfinding_changelist"),
                    _item("Clearing accounts", "task_alt", "clearing_accounts"),
                    _item("Webhook events", "webhook", "payments_webhookevent_changelist"),
                ],
            },
            {
                "title": "Access",
                "separator": True,
                "items": [_item("Users", "person", "auth_user_changelist")],
            },
        ],
    },
}
