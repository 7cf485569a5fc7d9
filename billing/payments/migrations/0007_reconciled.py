"""Ours against theirs, both ways."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("payments", "0006_dunning")]
    operations = []
