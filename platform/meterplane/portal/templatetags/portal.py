"""What the portal's templates say in one word: icons, amounts, instants, states."""

from datetime import datetime
from decimal import Decimal
from uuid import UUID

from django import template
from django.templatetags.static import static
from django.utils.html import format_html
from django.utils.safestring import SafeString

from meterplane.kernel import amounts

register = template.Library()

SPRITE = "portal/vendor/lucide.svg"
TONES = {
    "ok": "ok", "active": "ok", "paid": "ok", "done": "ok",
    "error": "bad", "revoked": "off", "uncollectible": "bad", "failed": "bad", "suspended": "bad",
    "interrupted": "warn", "past_due": "warn", "parked": "warn",
    "open": "info", "finalized": "info", "finalised": "info", "pushed": "info",
    "queued": "info", "running": "info", "finalising": "info", "wanted": "info",
}  # fmt: skip


@register.simple_tag
def icon(name: str) -> SafeString:
    """A Lucide icon from the vendored sprite, decorative: the text beside it says what it means."""
    return format_html(
        '<svg class="icon" aria-hidden="true"><use href="{}#{}"></use></svg>', static(SPRITE), name
    )


@register.simple_tag
def nano(amount_nano: int, currency: str, decimals: int | None = None) -> SafeString:
    """An exact amount; what lies below the minor unit is set back."""
    shown = amounts.exact(amount_nano, amounts.NANO_DIGITS, currency, decimals)
    return _amount(shown)


@register.simple_tag
def pico(amount_pico: int, currency: str, decimals: int | None = None) -> SafeString:
    """An exact unit price or an unrounded product."""
    return _amount(amounts.exact(amount_pico, amounts.PICO_DIGITS, currency, decimals))


def _amount(shown: amounts.ShownAmount) -> SafeString:
    if not shown.rest:
        return format_html("{}", shown.main)
    return format_html('{}<span class="sub">{}</span>', shown.main, shown.rest)


@register.simple_tag
def about(amount_nano: int, currency: str) -> str:
    """A rounded amount for a card."""
    return amounts.rounded(amount_nano, currency)


@register.simple_tag
def minor(amount_minor: int, currency: str) -> str:
    """An invoice's amount."""
    return amounts.minor(amount_minor, currency)


@register.simple_tag
def exact_amount(text: str | None, currency: str) -> str:
    """Decimal text with every digit it has, such as a tier's price; a dash where there is none."""
    if text is None:
        return amounts.NOTHING
    sign = "\N{MINUS SIGN}" if text.startswith("-") else ""
    return f"{sign}{amounts.symbol(currency)}{Decimal(text.removeprefix('-')):,f}"


@register.filter
def count(quantity: int | Decimal | str) -> str:
    """`1,234,567`; of a declared meter `1,234.5`."""
    return f"{quantity:,}" if isinstance(quantity, int) else f"{Decimal(quantity):,f}"


@register.filter
def ms(duration_ms: int) -> str:
    """A duration."""
    return amounts.milliseconds(duration_ms)


@register.filter
def us(duration_us: int) -> str:
    """A duration measured in microseconds."""
    if duration_us % 1000:
        return amounts.microseconds(duration_us)
    return amounts.milliseconds(duration_us // 1000)


@register.filter
def instant(moment: datetime) -> SafeString:
    """An instant to the millisecond."""
    return format_html(
        '<time datetime="{}">{}.{} UTC</time>',
        moment.isoformat(),
        f"{moment:%d %b %H:%M:%S}",
        f"{moment.microsecond // 1000:03}",
    )


@register.filter
def clock_time(moment: datetime) -> SafeString:
    """The time of day, to the second, where the day was told already."""
    return format_html('<time datetime="{}">{}</time>', moment.isoformat(), f"{moment:%H:%M:%S}")


@register.filter
def at(instant: datetime | None) -> SafeString | str:
    """An instant to the second, UTC, for a table; the page says UTC once."""
    if instant is None:
        return amounts.NOTHING
    return format_html(
        '<time datetime="{}" title="{} UTC">{}</time>',
        instant.isoformat(),
        f"{instant:%Y-%m-%d %H:%M:%S}",
        f"{instant:%d %b %H:%M:%S}",
    )


@register.filter
def minute(instant: datetime) -> SafeString:
    """A day and, below it where there is no room, the minute."""
    return format_html(
        '<time datetime="{}" title="{} UTC"><span class="nowrap">{}</span>'
        ' <span class="nowrap">{}</span></time>',
        instant.isoformat(),
        f"{instant:%Y-%m-%d %H:%M:%S}",
        f"{instant:%d %b}",
        f"{instant:%H:%M}",
    )


@register.filter
def hour(instant: datetime | None) -> SafeString | str:
    """The hour something happened in: more than that the roll-ups do not know."""
    if instant is None:
        return amounts.NOTHING
    return format_html(
        '<time datetime="{}" title="in the hour from {} UTC">{}</time>',
        instant.isoformat(),
        f"{instant:%Y-%m-%d %H:%M}",
        f"{instant:%d %b %H:%M}",
    )


@register.filter
def on(instant: datetime | None) -> SafeString | str:
    """A day."""
    if instant is None:
        return amounts.NOTHING
    return format_html(
        '<time datetime="{}">{}</time>', instant.isoformat(), f"{instant.day} {instant:%b %Y}"
    )


@register.filter
def short(identifier: UUID | str) -> str:
    """The start and the end of an id: enough to tell two apart."""
    text = str(identifier)
    return f"{text[:8]}…{text[-6:]}"


@register.filter
def tone(state: str) -> str:
    """The colour family of a state."""
    return TONES.get(state, "off")


@register.filter
def words(state: str) -> str:
    """`past_due` as people write it."""
    return state.replace("_", " ").capitalize() if state != "ok" else "OK"


@register.filter
def initials(name: str) -> str:
    """One or two letters for a tile."""
    parts = [part for part in name.replace("@", " ").replace(".", " ").split() if part]
    return "".join(part[0] for part in parts[:2])
