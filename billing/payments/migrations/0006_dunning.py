"""What is done when an invoice is not paid."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("payments", "0005_corrections")]
    operations = []
