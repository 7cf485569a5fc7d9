"""To be written."""

from django.db import migrations


class Migration(migrations.Migration):

    dependencies = [("invoicing", "0003_rated_lines")]

    operations = []
