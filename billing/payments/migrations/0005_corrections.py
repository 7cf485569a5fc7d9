"""Refunds, credit notes and disputes at the provider."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("payments", "0004_top_ups")]
    operations = []
