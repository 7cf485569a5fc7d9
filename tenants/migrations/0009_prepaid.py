"""Organisations that are held to their credit."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("tenants", "0008_plan_restrictions")]
    operations = []
