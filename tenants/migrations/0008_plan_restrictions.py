"""A plan restricts what keys are used for, as it limits how much."""

from django.db import migrations, models

IS_AN_OBJECT = """
ALTER TABLE plan ADD CONSTRAINT plan_restrictions_is_an_object
  CHECK (jsonb_typeof(restrictions) = 'object');
"""
IS_AN_OBJECT_NO_MORE = "ALTER TABLE plan DROP CONSTRAINT plan_restrictions_is_an_object"


class Migration(migrations.Migration):

    dependencies = [
        ('tenants', '0007_own_limits'),
    ]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.AddField(
            model_name='plan',
            name='restrictions',
            field=models.JSONField(blank=True, default=dict),
        ),
        migrations.RunSQL(IS_AN_OBJECT, IS_AN_OBJECT_NO_MORE),
    ]
