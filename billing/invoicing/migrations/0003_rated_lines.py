"""To be written."""

from django.db import migrations


class Migration(migrations.Migration):

    dependencies = [("invoicing", "0002_line_tier")]

    operations = []
