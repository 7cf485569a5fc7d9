"""Interim invoices of an open month."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("invoicing", "0005_credit_lines")]
    operations = []
