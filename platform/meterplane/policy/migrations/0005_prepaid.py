"""Blocks of a budget can be taken back."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("policy", "0004_alerts")]
    operations = []
