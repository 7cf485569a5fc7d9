"""Credit that admission is held to."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("credits", "0001_grants")]
    operations = []
