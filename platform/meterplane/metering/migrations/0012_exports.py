"""Exports that were asked for, and schedules of them."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("metering", "0011_reconciliation")]
    operations = []
