"""Pages hold nothing their own content policy would block, and everything they need.

A template with one inline handler works until the day the policy is enforced in a browser nobody
tests with; so the templates are read, not only the pages.
"""

import re
from pathlib import Path

from django.test import Client

import meterplane.portal
from meterplane.portal import vendor

PORTAL = Path(meterplane.portal.__file__).parent
TEMPLATES = sorted((PORTAL / "templates").rglob("*.html"))
FORBIDDEN = {
    "an inline style": re.compile(r"\sstyle\s*="),
    "an inline handler": re.compile(r"\son[a-z]+\s*="),
    "a style element": re.compile(r"<style"),
    "an inline script": re.compile(r"<script(?![^>]*\ssrc=)"),
    "an evaluated htmx value": re.compile(r"hx-on|hx-vals\s*=\s*['\"]js:|\[[^\]]*\]\s*['\"]\s*hx-"),
    "another host": re.compile(r"(src|href|action)\s*=\s*[\"'](https?:)?//"),
}
POLICY = (
    "default-src 'self'", "img-src 'self' data:", "object-src 'none'", "base-uri 'none'",
    "frame-ancestors 'none'", "form-action 'self'",
)  # fmt: skip


def test_templates_hold_nothing_the_policy_would_block():
    assert len(TEMPLATES) > 30
    found = [
        f"{path.relative_to(PORTAL)} holds {what}"
        for path in TEMPLATES
        for what, pattern in FORBIDDEN.items()
        if pattern.search(path.read_text())
    ]
    assert not found


def test_own_scripts_evaluate_nothing():
    for name in ("portal.js", "theme.js"):
        text = (PORTAL / "static/portal" / name).read_text()
        assert not re.search(r"\beval\(|new Function|innerHTML|document\.write", text), name


def test_every_page_carries_the_policy(owner):
    for client, path in ((owner, "/"), (owner, "/nowhere/"), (Client(), "/accounts/login/")):
        policy = client.get(path)["Content-Security-Policy"]
        assert sorted(part.strip() for part in policy.split(";")) == sorted(POLICY), path


def test_pages_are_not_framed_sniffed_or_kept(owner):
    response = owner.get("/")
    assert response["X-Frame-Options"] == "DENY"
    assert response["X-Content-Type-Options"] == "nosniff"
    assert response["Cache-Control"] == "no-store"


def test_every_icon_a_template_names_is_in_the_sprite():
    sprite = (vendor.TARGET / "lucide.svg").read_text()
    shipped = set(re.findall(r'<symbol id="([^"]+)"', sprite))
    named = {
        name
        for path in TEMPLATES
        for name in re.findall(r'{% icon "([^"]+)" %}|\sicon="([^"]+)"', path.read_text())
        for name in name
        if name
    }
    assert named
    assert named <= shipped


def test_the_vendored_files_are_the_ones_the_manifest_names():
    assert vendor.problems() == []


def test_a_changed_vendored_file_is_noticed(tmp_path, monkeypatch):
    for file in vendor.TARGET.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "htmx.min.js").write_bytes(b"// changed\n")
    (tmp_path / "stray.js").write_bytes(b"")
    monkeypatch.setattr(vendor, "TARGET", tmp_path)
    assert vendor.problems() == [
        "htmx.min.js is not the file whose SHA-256 the manifest gives",
        "stray.js is not in the manifest",
    ]


def test_every_vendored_package_has_a_licence_that_allows_shipping_it():
    licences = {asset.licence for asset in vendor.read_manifest()}
    assert licences <= {"MIT", "ISC", "0BSD", "OFL-1.1"}
