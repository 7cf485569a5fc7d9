"""What reconciliation compares, and its verdicts."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("metering", "0010_external_events")]
    operations = []
