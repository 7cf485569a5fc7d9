"""Usage that did not pass the gateway."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("metering", "0009_tags_and_days")]
    operations = []
