"""Who can sign in. To look at: onboarding makes accounts, passwords belong to their owners."""

from django.contrib import admin
from django.contrib.auth.models import User

from meterplane.console.read_only import ReadOnly
from meterplane.console.site import site


@admin.register(User, site=site)
class UserPage(ReadOnly):
    """Users, without their password hashes."""

    list_display = ("email", "is_active", "is_staff", "date_joined", "last_login")
    list_filter = ("is_staff", "is_active")
    search_fields = ("email",)
    fields = ("email", "is_active", "is_staff", "is_superuser", "date_joined", "last_login")
