"""To be written."""

from django.db import migrations


class Migration(migrations.Migration):

    dependencies = [("pricing", "0002_batch_prices")]

    operations = []
