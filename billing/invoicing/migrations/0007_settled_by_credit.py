"""What credit settles of an invoice."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("invoicing", "0006_interim")]
    operations = []
