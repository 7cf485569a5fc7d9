"""What usage says of priority, region and GPU."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("metering", "0015_arrivals")]
    operations = []
