"""Credit that is paid for ahead."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("payments", "0003_subjects")]
    operations = []
